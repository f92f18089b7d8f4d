//! The node on real parts, one story each. `tests/run` prepares everything and runs this.

mod absent;
mod alerts;
mod bad_config;
mod bad_disk;
mod bad_models;
mod bad_peers;
mod bad_readings;
mod bound;
mod common;
mod constrained;
mod copied;
mod crashes;
mod demo;
mod doctor;
mod families;
mod first_boot;
mod fleet;
mod foreign;
mod grid;
mod hostile;
mod kills;
mod late;
mod lifecycle;
mod mqtt;
mod opcua;
mod opcua_commands;
mod opcua_faults;
mod opcua_folder;
mod opcua_security;
mod opcua_types;
mod outages;
mod packages;
mod packed;
mod planning;
mod quarantine;
mod recipes;
mod renewed;
mod secured;
mod stalled;
mod uplink;

use skerry_tests::runner::{self, Need, Scenario};

const PYTHON: &[Need] = &[Need::Python];
const REAL_SERIES: &[Need] = &[Need::Python, Need::SharedData];
const KAFKA: &[Need] = &[Need::Python, Need::Kafka];
const TWO_PLANTS: &[Need] = &[Need::Python, Need::NodeOpcua];
const THREE_PLANTS: &[Need] = &[Need::Python, Need::NodeOpcua, Need::Open62541];
const KAFKA_AND_LIMIT: &[Need] = &[Need::Python, Need::Kafka, Need::MemoryLimit];
const KAFKA_AND_MOUNT: &[Need] = &[Need::Python, Need::Kafka, Need::Mount];

/// Those that wait most of their time and leave the processors to others meanwhile. A Kafka whose
/// line is cut does not: it calls itself without a pause.
const WAITING: &[&str] = &[
    "opcua_server_restarted",
    "opcua_server_calls_the_node",
    "opcua_servers_killed_and_rebuilt",
    "opcua_servers_frozen",
    "opcua_cable_pulled",
    "opcua_sessions_deleted_by_servers",
    "opcua_history_fills_what_sessions_lost",
    "opcua_node_killed_while_subscribed",
    "opcua_node_with_groups_killed",
    "opcua_server_with_an_odd_clock",
    "peers_that_are_not_there",
    "package_of_bad_versions_gives_way",
];

fn main() -> std::process::ExitCode {
    let scenarios = [
        Scenario {
            name: "mqtt_to_kafka_once_and_in_order",
            needs: KAFKA,
            run: mqtt::once,
        },
        Scenario {
            name: "malformed_mqtt_stops_nothing",
            needs: PYTHON,
            run: mqtt::malformed,
        },
        Scenario {
            name: "node_killed_mid_stream",
            needs: KAFKA,
            run: crashes::node_killed,
        },
        Scenario {
            name: "node_killed_while_kafka_is_away",
            needs: KAFKA,
            run: crashes::offline,
        },
        Scenario {
            name: "uplink_to_three_brokers",
            needs: KAFKA,
            run: uplink::cluster,
        },
        Scenario {
            name: "uplink_killed_in_a_drain",
            needs: KAFKA,
            run: uplink::drain_killed,
        },
        Scenario {
            name: "uplink_of_copied_disks",
            needs: KAFKA,
            run: uplink::copied_disks,
        },
        Scenario {
            name: "uplink_over_a_satellite",
            needs: KAFKA,
            run: uplink::satellite,
        },
        Scenario {
            name: "uplink_topic_recreated",
            needs: KAFKA,
            run: uplink::topic_recreated,
        },
        Scenario {
            name: "uplink_of_a_fleet",
            needs: KAFKA,
            run: fleet::returns,
        },
        Scenario {
            name: "mqtt_killed_at_any_moment",
            needs: &[],
            run: kills::rounds,
        },
        Scenario {
            name: "mqtt_sessions_over_a_restart",
            needs: &[],
            run: absent::restarted,
        },
        Scenario {
            name: "mqtt_on_a_disk_that_stalls",
            needs: &[Need::Disk],
            run: stalled::disk,
        },
        Scenario {
            name: "full_load_on_a_small_board",
            needs: KAFKA_AND_LIMIT,
            run: constrained::full_load,
        },
        Scenario {
            name: "hostile_slow_connects",
            needs: &[],
            run: hostile::slowloris,
        },
        Scenario {
            name: "hostile_idle_connections",
            needs: &[],
            run: hostile::idle,
        },
        Scenario {
            name: "hostile_subscriber_never_reads",
            needs: &[],
            run: hostile::subscribers::never_reads,
        },
        Scenario {
            name: "hostile_deep_filters",
            needs: &[],
            run: hostile::subscribers::deep_filters,
        },
        Scenario {
            name: "hostile_take_over_storm",
            needs: &[],
            run: hostile::take_overs,
        },
        Scenario {
            name: "hostile_retained_flood",
            needs: &[],
            run: hostile::subscribers::retained_flood,
        },
        Scenario {
            name: "hostile_noise",
            needs: &[],
            run: hostile::noise,
        },
        Scenario {
            name: "client_paho",
            needs: PYTHON,
            run: foreign::paho,
        },
        Scenario {
            name: "client_mqtt_js",
            needs: &[Need::MqttJs],
            run: foreign::mqtt_js,
        },
        Scenario {
            name: "client_mosquitto",
            needs: &[Need::Mosquitto],
            run: foreign::mosquitto,
        },
        Scenario {
            name: "client_rumqttc",
            needs: &[],
            run: foreign::rumqttc,
        },
        Scenario {
            name: "kafka_stopped_killed_and_frozen",
            needs: KAFKA,
            run: outages::kafka,
        },
        Scenario {
            name: "link_cut_and_stalled",
            needs: KAFKA,
            run: outages::link,
        },
        Scenario {
            name: "packed_records_in_python",
            needs: PYTHON,
            run: packed::python,
        },
        Scenario {
            name: "packed_records_through_a_cluster",
            needs: KAFKA,
            run: packed::cluster,
        },
        Scenario {
            name: "uplink_of_a_node_frozen_in_a_drain",
            needs: KAFKA,
            run: uplink::frozen_in_a_drain,
        },
        Scenario {
            name: "unpacked_into_a_topic_and_killed",
            needs: KAFKA,
            run: copied::killed,
        },
        Scenario {
            name: "unpack_refuses_what_would_lose_or_repeat",
            needs: KAFKA,
            run: copied::refused,
        },
        Scenario {
            name: "packed_records_in_java",
            needs: &[Need::Kafka, Need::PackJava],
            run: packed::java,
        },
        Scenario {
            name: "kafka_over_tls_with_each_login",
            needs: KAFKA,
            run: secured::logins,
        },
        Scenario {
            name: "kafka_refuses_or_is_not_trusted",
            needs: KAFKA,
            run: secured::refused,
        },
        Scenario {
            name: "backlog_older_than_its_topics_retention",
            needs: KAFKA,
            run: late::policies,
        },
        Scenario {
            name: "uplink_doctor_finds_what_is_wrong",
            needs: KAFKA,
            run: doctor::examines,
        },
        Scenario {
            name: "opcua_server_restarted",
            needs: KAFKA,
            run: opcua::restarted,
        },
        Scenario {
            name: "opcua_server_calls_the_node",
            needs: &[Need::Open62541],
            run: opcua::calls,
        },
        Scenario {
            name: "opcua_servers_killed_and_rebuilt",
            needs: THREE_PLANTS,
            run: opcua_faults::server_rebuilt,
        },
        Scenario {
            name: "opcua_servers_frozen",
            needs: THREE_PLANTS,
            run: opcua_faults::server_frozen,
        },
        Scenario {
            name: "opcua_cable_pulled",
            needs: THREE_PLANTS,
            run: opcua_faults::cable_pulled,
        },
        Scenario {
            name: "opcua_sessions_deleted_by_servers",
            needs: THREE_PLANTS,
            run: opcua_faults::sessions_deleted,
        },
        Scenario {
            name: "opcua_history_fills_what_sessions_lost",
            needs: &[Need::NodeOpcua, Need::Open62541],
            run: opcua_faults::history_read,
        },
        Scenario {
            name: "opcua_node_killed_while_subscribed",
            needs: THREE_PLANTS,
            run: opcua_faults::node_killed,
        },
        Scenario {
            name: "opcua_node_with_groups_killed",
            needs: THREE_PLANTS,
            run: opcua_faults::node_with_groups_killed,
        },
        Scenario {
            name: "opcua_server_with_an_odd_clock",
            needs: PYTHON,
            run: opcua::clock_odd,
        },
        Scenario {
            name: "opcua_types_and_units",
            needs: TWO_PLANTS,
            run: opcua_types::types_and_units,
        },
        Scenario {
            name: "opcua_events",
            needs: TWO_PLANTS,
            run: opcua_types::events,
        },
        Scenario {
            name: "opcua_folder_follows_the_server",
            needs: PYTHON,
            run: opcua_folder::follows,
        },
        Scenario {
            name: "opcua_browse_gives_config",
            needs: &[Need::Python, Need::NodeOpcua],
            run: opcua::browse,
        },
        Scenario {
            name: "opcua_security_matrix",
            needs: &[Need::Python, Need::NodeOpcua, Need::Milo],
            run: opcua_security::matrix,
        },
        Scenario {
            name: "opcua_security_certificates",
            needs: &[Need::Python, Need::NodeOpcua],
            run: opcua_security::certificates,
        },
        Scenario {
            name: "opcua_certificate_swapped",
            needs: PYTHON,
            run: opcua_security::certificate_swapped,
        },
        Scenario {
            name: "opcua_commands",
            needs: PYTHON,
            run: opcua_commands::carried_out,
        },
        Scenario {
            name: "opcua_alarm_acknowledged",
            needs: &[Need::Python, Need::NodeOpcua],
            run: opcua_commands::acknowledged,
        },
        Scenario {
            name: "model_raises_and_clears_an_alert",
            needs: KAFKA,
            run: alerts::replayed,
        },
        Scenario {
            name: "model_alerts_of_all_machines_are_limited",
            needs: PYTHON,
            run: alerts::limited,
        },
        Scenario {
            name: "models_shipped_are_right",
            needs: &[],
            run: recipes::shipped_load,
        },
        Scenario {
            name: "models_bound_as_numpy_has_it",
            needs: PYTHON,
            run: bound::as_numpy,
        },
        Scenario {
            name: "models_on_a_grid_as_numpy_has_it",
            needs: PYTHON,
            run: grid::as_numpy,
        },
        Scenario {
            name: "models_that_do_harm",
            needs: PYTHON,
            run: bad_models::harm,
        },
        Scenario {
            name: "model_fed_nonsense",
            needs: PYTHON,
            run: bad_readings::counted,
        },
        Scenario {
            name: "models_of_every_family",
            needs: PYTHON,
            run: families::agree,
        },
        Scenario {
            name: "models_on_trial",
            needs: PYTHON,
            run: lifecycle::on_trial,
        },
        Scenario {
            name: "models_on_real_turbofans",
            needs: REAL_SERIES,
            run: recipes::turbofan,
        },
        Scenario {
            name: "models_on_milling_records",
            needs: REAL_SERIES,
            run: recipes::milling,
        },
        Scenario {
            name: "models_killed_among_turbofans",
            needs: REAL_SERIES,
            run: recipes::killed,
        },
        Scenario {
            name: "peers_that_are_not_there",
            needs: KAFKA,
            run: bad_peers::absent,
        },
        Scenario {
            name: "records_the_cluster_refuses",
            needs: KAFKA,
            run: quarantine::too_large,
        },
        Scenario {
            name: "figures_of_an_outage",
            needs: KAFKA,
            run: planning::figures,
        },
        Scenario {
            name: "kafka_certificate_ends_and_is_renewed",
            needs: KAFKA,
            run: renewed::certificate,
        },
        Scenario {
            name: "kafka_login_with_tokens",
            needs: KAFKA,
            run: renewed::tokens,
        },
        Scenario {
            name: "config_problems_all_at_once",
            needs: &[],
            run: bad_config::problems,
        },
        Scenario {
            name: "shipped_configs_are_right",
            needs: &[],
            run: bad_config::shipped,
        },
        Scenario {
            name: "readme_commands_exist",
            needs: &[],
            run: bad_config::readme_commands,
        },
        Scenario {
            name: "data_directory_in_use",
            needs: &[],
            run: bad_disk::in_use,
        },
        Scenario {
            name: "data_directory_read_only",
            needs: &[Need::Mount],
            run: bad_disk::read_only,
        },
        Scenario {
            name: "data_directory_in_memory",
            needs: &[],
            run: bad_disk::in_memory,
        },
        Scenario {
            name: "stream_full",
            needs: KAFKA,
            run: bad_disk::stream_full,
        },
        Scenario {
            name: "disk_full_and_space_again",
            needs: KAFKA_AND_MOUNT,
            run: bad_disk::full,
        },
        Scenario {
            name: "disk_full_in_a_drain",
            needs: KAFKA_AND_MOUNT,
            run: bad_disk::full_in_a_drain,
        },
        Scenario {
            name: "graceful_stop_and_systemd",
            needs: PYTHON,
            run: lifecycle::systemd,
        },
        Scenario {
            name: "reconfigured_by_a_signal",
            needs: &[],
            run: lifecycle::reconfigured,
        },
        Scenario {
            name: "health_readiness_and_metrics",
            needs: PYTHON,
            run: lifecycle::health,
        },
        Scenario {
            name: "unit_is_hardened",
            needs: &[Need::Systemd],
            run: packages::unit,
        },
        Scenario {
            name: "package_installed_upgraded_and_purged",
            needs: &[Need::Machine, Need::Mosquitto],
            run: packages::lifecycle,
        },
        Scenario {
            name: "package_of_bad_versions_gives_way",
            needs: &[Need::Machine, Need::Mosquitto],
            run: packages::bad_versions,
        },
        Scenario {
            name: "package_refused_where_it_cannot_work",
            needs: &[Need::Machine],
            run: packages::refused,
        },
        Scenario {
            name: "first_boot_from_the_boot_partition",
            needs: &[Need::Machine, Need::Mosquitto],
            run: first_boot::partition,
        },
        Scenario {
            name: "first_boot_from_a_stick",
            needs: &[Need::Machine, Need::Stick, Need::Mosquitto],
            run: first_boot::stick,
        },
        Scenario {
            name: "demo_audit_holds",
            needs: &[],
            run: demo::plain,
        },
        Scenario {
            name: "demo_with_real_kafka",
            needs: KAFKA,
            run: demo::kafka,
        },
        Scenario {
            name: "demo_interrupted",
            needs: &[],
            run: demo::interrupted,
        },
    ];
    runner::main(&scenarios, WAITING)
}
