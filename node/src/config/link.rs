//! `[[kafka.link]]`: kinds of links to the cluster and what each may carry. The keys of `[kafka]`
//! itself are the defaults, and what holds where no link applies.

use super::reader::{Table, Value};
use super::units;
use skerry_bridge::uplink::gate::{
    AUTO, BitRate, Budget, Cidr, DEFAULT, LinkClass, Links, Login, Pack, Proxy, Windows, Zone,
};
use skerry_store::StreamName;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

/// Lifts a limit that `[kafka]` sets.
const UNLIMITED: &str = "unlimited";
/// The same for a proxy.
const NO_PROXY: &str = "none";
/// Below, a link of 600 ms with a lost packet would count as dead; above, nobody waits so long.
const DEAD_AFTER: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(3600);
/// Below, a few dials are a day's budget.
const BUDGET_BYTES: RangeInclusive<u64> = 100_000..=1 << 50;
/// The kernel's own limit on the name of an interface.
const INTERFACE_BYTES_MAX: usize = 15;

/// The link classes of `[kafka]`; the caller finishes that table. `named` finds a stream.
pub fn read(
    kafka: &Table<'_>,
    base: &Path,
    named: impl Fn(&str) -> Result<StreamName, String>,
) -> Links {
    let default = read_class(kafka, base, &LinkClass::new(DEFAULT));
    let mut names = BTreeSet::new();
    let mut classes = Vec::new();
    for table in kafka.tables("link") {
        let Some(name) = table.required("name", class_name) else {
            continue;
        };
        if !names.insert(name.clone()) {
            table.problem("name", format!("`{name}` is another link's name already"));
        }
        let mut class = read_class(&table, base, &default);
        class.name = name;
        class.interface = table.optional("interface", interface);
        class.route = table.optional("route", |value| {
            let net = value.string()?.parse::<Cidr>();
            net.map_err(|why| why.to_string())
        });
        class.streams = table.optional("streams", |value| {
            value.list(|stream| named(stream.string()?))
        });
        class.pack = table.optional(
            "pack",
            units::word(&[("auto", Pack::Auto), ("off", Pack::Off)]),
        );
        table.finish();
        classes.push(class);
    }
    Links::new(default, classes)
}

/// What a link and `[kafka]` have in common: where a key is absent, as `inherited`.
fn read_class(table: &Table<'_>, base: &Path, inherited: &LinkClass) -> LinkClass {
    let own = |key, of: Option<BitRate>| table.optional(key, bandwidth).unwrap_or(of);
    LinkClass {
        bandwidth: own("bandwidth", inherited.bandwidth),
        bandwidth_receive: own("bandwidth_receive", inherited.bandwidth_receive),
        dead_after: table
            .optional("dead_after", units::duration(DEAD_AFTER))
            .unwrap_or(inherited.dead_after),
        budget: read_budget(table, &inherited.budget),
        windows: read_windows(table, &inherited.windows),
        proxy: read_proxy(table, base, inherited.proxy.as_ref()),
        ..inherited.clone()
    }
}

fn read_budget(table: &Table<'_>, inherited: &Budget) -> Budget {
    let own = |key, of: Option<u64>| table.optional(key, budget_bytes).unwrap_or(of);
    let reserve = table.optional("reserve_percent", units::count(0..=90));
    Budget {
        bytes_per_day: own("bytes_per_day", inherited.bytes_per_day),
        bytes_per_month: own("bytes_per_month", inherited.bytes_per_month),
        reserve_percent: reserve
            .and_then(|percent| u8::try_from(percent).ok())
            .unwrap_or(inherited.reserve_percent),
        ..inherited.clone()
    }
}

fn read_windows(table: &Table<'_>, inherited: &Windows) -> Windows {
    let zone = table.optional("time_zone", |value| {
        Zone::new(value.string()?).map_err(|why| why.to_string())
    });
    let zone = zone.unwrap_or_else(|| inherited.zone().clone());
    let windows = table.optional("windows", |value| {
        let rules = value.list(|rule| Ok(rule.string()?.to_owned()))?;
        let windows = Windows::new(zone.clone(), rules.iter().map(String::as_str));
        windows.map_err(|why| why.to_string())
    });
    windows.unwrap_or_else(|| inherited.clone().in_zone(zone))
}

/// A link that names a proxy of its own has that one's login, not the one of `[kafka]`.
fn read_proxy(table: &Table<'_>, base: &Path, inherited: Option<&Proxy>) -> Option<Proxy> {
    let own = table.optional("proxy", |value| match value.string()? {
        NO_PROXY => Ok(None),
        url => Proxy::parse(url).map(Some).map_err(|why| why.to_string()),
    });
    let user = table.optional("proxy_user", units::text);
    let password_file = table.optional("proxy_password_file", units::path_from(base));
    if user.is_some() != password_file.is_some() {
        table.problem(
            "proxy_user",
            "goes together with proxy_password_file: give both or neither",
        );
    }
    if user.is_some() && !table.has("proxy") {
        table.problem("proxy_user", "is of no use without proxy in the same table");
    }
    if let Some(error) = password_file
        .as_ref()
        .and_then(|it| std::fs::read(it).err())
    {
        table.problem("proxy_password_file", format!("cannot be read: {error}"));
    }
    let Some(own) = own else {
        return inherited.cloned();
    };
    let login = user.zip(password_file).map(|(user, password_file)| Login {
        user,
        password_file,
    });
    own.map(|proxy| Proxy { login, ..proxy })
}

/// `"256 kbit/s"`, or no limit.
fn bandwidth(value: &Value<'_>) -> Result<Option<BitRate>, String> {
    const UNITS: [(&str, f64); 4] = [
        ("kbit/s", 1e3),
        ("Mbit/s", 1e6),
        ("Gbit/s", 1e9),
        ("bit/s", 1.0),
    ];
    let text = value.string().map_err(|_| {
        "must be a bandwidth in quotes with its unit, such as \"256 kbit/s\"".to_owned()
    })?;
    if text == UNLIMITED {
        return Ok(None);
    }
    let parsed = UNITS.iter().find_map(|(unit, factor)| {
        let number: f64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        Some(number * factor)
    });
    let bits = parsed.filter(|bits| bits.is_finite()).ok_or_else(|| {
        format!(
            "`{text}` is not a bandwidth: a number and bit/s, kbit/s, Mbit/s or Gbit/s, such as \
             \"256 kbit/s\", or \"{UNLIMITED}\""
        )
    })?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, and what is negative is 0, which is refused"
    )]
    let rate = BitRate::new(bits as u64);
    rate.map(Some)
        .ok_or_else(|| format!("must be at least {}, not {text}", BitRate::LEAST))
}

/// `"200 MB"`, or no limit.
fn budget_bytes(value: &Value<'_>) -> Result<Option<u64>, String> {
    match value.string() {
        Ok(UNLIMITED) => Ok(None),
        _ => units::bytes(BUDGET_BYTES)(value).map(Some),
    }
}

fn class_name(value: &Value<'_>) -> Result<String, String> {
    let name = units::text(value)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !name.chars().all(allowed) || [AUTO, DEFAULT].contains(&name.as_str()) {
        return Err(format!(
            "`{name}` cannot be a link's name: use letters, digits, `-`, `_` and `.`, and neither \
             `{AUTO}` nor `{DEFAULT}`, which have a meaning"
        ));
    }
    Ok(name)
}

fn interface(value: &Value<'_>) -> Result<String, String> {
    let name = units::text(value)?;
    let odd = |c: char| c == '/' || c.is_whitespace() || !c.is_ascii();
    if name.len() > INTERFACE_BYTES_MAX || name.contains(odd) {
        return Err(format!(
            "`{name}` is not the name of an interface such as \"wwan0\"; `ip link` lists them"
        ));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::super::reader::Source;
    use super::*;
    use skerry_bridge::uplink::gate::ProxyKind;

    /// The links of `[kafka]` with `keys`, or the problems.
    fn links(keys: &str) -> Result<Links, String> {
        let text = format!("[kafka]\n{keys}");
        let source = Source::new(Path::new("skerry.toml"), &text);
        let links = source.read(|root| {
            let kafka = root.table("kafka").expect("there is one");
            let named = |name: &str| match name {
                "alerts" => StreamName::new(name).map_err(|why| why.to_string()),
                _ => Err(format!("no stream `{name}`")),
            };
            let links = read(&kafka, Path::new("/etc/skerry"), named);
            kafka.finish();
            links
        });
        source
            .into_report()
            .map_or(Ok(links), |report| Err(report.to_string()))
    }

    fn class(links: &Links, name: &str) -> LinkClass {
        links.command(name).expect(name);
        links.settings().borrow().class.clone()
    }

    #[test]
    fn a_link_has_what_kafka_says_and_what_it_says_otherwise() {
        let links = links(
            r#"
bandwidth = "256 kbit/s"
bytes_per_day = "200 MB"
bytes_per_month = "4GB"
windows = ["* 2-5 * * *"]
time_zone = "Europe/Oslo"
dead_after = "45s"
proxy = "socks5://10.0.0.1:1080"
[[kafka.link]]
name = "satellite"
interface = "sat0"
streams = ["alerts"]
pack = "auto"
reserve_percent = 25
[[kafka.link]]
name = "harbour"
route = "10.8.0.0/16"
bandwidth = "1.5 Mbit/s"
bandwidth_receive = "64kbit/s"
bytes_per_day = "unlimited"
windows = []
proxy = "http://proxy.port.example:3128"
[[kafka.link]]
name = "lte"
proxy = "none"
bandwidth = "unlimited"
time_zone = "UTC"
"#,
        )
        .unwrap();
        let satellite = class(&links, "satellite");
        let default = class(&links, "default");
        assert_eq!(satellite.bandwidth, BitRate::new(256_000));
        assert_eq!(satellite.dead_after, Duration::from_secs(45));
        assert_eq!(satellite.budget.bytes_per_day, Some(200_000_000));
        assert_eq!(satellite.budget.bytes_per_month, Some(4_000_000_000));
        assert_eq!(satellite.budget.reserve_percent, 25);
        assert_eq!(satellite.interface.as_deref(), Some("sat0"));
        assert_eq!(satellite.pack, Some(Pack::Auto));
        assert_eq!(satellite.streams.unwrap().len(), 1);
        assert_eq!(
            (&satellite.windows, &satellite.proxy),
            (&default.windows, &default.proxy)
        );
        assert_eq!(default.windows.zone().name(), "Europe/Oslo");
        let harbour = class(&links, "harbour");
        assert_eq!(harbour.bandwidth, BitRate::new(1_500_000));
        assert_eq!(harbour.bandwidth_receive, BitRate::new(64_000));
        assert_eq!(harbour.budget.bytes_per_day, None);
        assert_eq!(harbour.route, Some("10.8.0.0/16".parse().unwrap()));
        let noon = skerry_bridge::uplink::gate::UnixSeconds(1_764_936_000);
        assert!(harbour.windows.is_open(noon) && !default.windows.is_open(noon));
        assert_eq!(harbour.proxy.unwrap().kind, ProxyKind::HttpConnect);
        let lte = class(&links, "lte");
        assert_eq!((lte.proxy, lte.bandwidth), (None, None));
        assert_eq!(lte.windows.zone(), &Zone::UTC);
        assert!(!lte.windows.is_open(noon));
        let plain = class(&self::links("").unwrap(), "default");
        assert_eq!(plain, LinkClass::new(DEFAULT));
    }

    #[test]
    fn every_bad_value_is_told_what_is_allowed() {
        let report = links(
            r#"bandwidth = "256 kB/s"
bandwidth_receive = "1 bit/s"
bytes_per_day = "lots"
bytes_per_month = "10 kB"
reserve_percent = 95
windows = ["* 25 * * *"]
time_zone = "Oslo"
dead_after = "1s"
proxy = "https://proxy"
proxy_user = "u"
[[kafka.link]]
name = "auto"
[[kafka.link]]
name = "lte"
interface = "wwan0/1"
route = "10.8"
streams = ["nothing"]
pack = "yes"
proxy_user = "u"
proxy_password_file = "/nowhere/password"
[[kafka.link]]
name = "lte"
bandwith = "1 Mbit/s"
"#,
        )
        .unwrap_err();
        let expected = [
            "2: kafka.bandwidth: `256 kB/s` is not a bandwidth: a number and bit/s, kbit/s",
            "3: kafka.bandwidth_receive: must be at least 200 bit/s",
            "4: kafka.bytes_per_day: `lots` is not a size",
            "5: kafka.bytes_per_month: must be between",
            "6: kafka.reserve_percent: must be between 0 and 90",
            "7: kafka.windows: `* 25 * * *` has `25` as hour, which is 0 to 23",
            "8: kafka.time_zone: `Oslo` is not a time zone",
            "9: kafka.dead_after: must be between 5s and 1h",
            "10: kafka.proxy: `https://proxy` is not a proxy skerry can use",
            "11: kafka.proxy_user: goes together with proxy_password_file",
            "13: kafka.link[0].name: `auto` cannot be a link's name",
            "16: kafka.link[1].interface: `wwan0/1` is not the name of an interface",
            "17: kafka.link[1].route: `10.8` is not a net",
            "18: kafka.link[1].streams: [0] no stream `nothing`",
            "19: kafka.link[1].pack: `yes` must be one of `auto`, `off`",
            "20: kafka.link[1].proxy_user: is of no use without proxy",
            "21: kafka.link[1].proxy_password_file: cannot be read",
            "23: kafka.link[2].name: `lte` is another link's name already",
            "24: kafka.link[2].bandwith: is not a key skerry knows; did you mean `bandwidth`?",
        ];
        let lines: Vec<&str> = report.lines().collect();
        for (line, wanted) in lines.iter().zip(expected) {
            assert!(
                line.starts_with(&format!("skerry.toml:{wanted}")),
                "{line}\n{wanted}"
            );
        }
        assert_eq!(lines.len(), expected.len() + 1, "{report}");
    }
}
