/* An OPC-UA server on open62541: counters that go up by one at every tick.
 *
 *   opcua-server --port N --out FILE [--counters N] [--first N] [--interval SECONDS]
 *                [--namespaces N] [--double] [--terse] [--history N]
 *
 * Writes what each counter was set to as a JSON line, with its source time in nanoseconds since
 * the Unix epoch. --terse writes one line a tick for all counters. --namespaces puts that many
 * namespaces before the counters' own. --history keeps that many values of each counter.
 * SIGUSR2 closes every session and deletes its subscriptions. Ends when its standard input closes.
 */
#include <open62541/plugin/historydata/history_data_backend_memory.h>
#include <open62541/plugin/historydata/history_data_gathering_default.h>
#include <open62541/plugin/historydata/history_database_default.h>
#include <open62541/server.h>
#include <open62541/server_config_default.h>

#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAMESPACE "urn:skerry:tests"
#define SESSIONS_MAX 16
#define NAME_MAX_BYTES 24

static struct {
    unsigned port;
    unsigned counters;
    int64_t first;
    double interval_s;
    unsigned namespaces;
    bool as_double;
    bool terse;
    unsigned history;
    unsigned call;
    FILE *out;
} options = {.counters = 3, .interval_s = 0.1};

static UA_NodeId *nodes;
static int64_t value;
static volatile sig_atomic_t close_sessions;
static UA_NodeId sessions[SESSIONS_MAX];
static unsigned sessions_count;

static void die(const char *what) {
    fprintf(stderr, "opcua-server: %s\n", what);
    exit(1);
}

/* --- options ------------------------------------------------------------------------------- */

static void read_options(int count, char **words) {
    static const struct option known[] = {
        {"port", required_argument, NULL, 'p'},     {"out", required_argument, NULL, 'o'},
        {"counters", required_argument, NULL, 'c'}, {"first", required_argument, NULL, 'f'},
        {"interval", required_argument, NULL, 'i'}, {"namespaces", required_argument, NULL, 'n'},
        {"history", required_argument, NULL, 'h'},  {"double", no_argument, NULL, 'd'},
        {"terse", no_argument, NULL, 't'},          {"call", required_argument, NULL, 'r'},
        {NULL, 0, NULL, 0},
    };
    for(int name; (name = getopt_long(count, words, "", known, NULL)) != -1;) {
        switch(name) {
        case 'p': options.port = (unsigned)atoi(optarg); break;
        case 'o': options.out = fopen(optarg, "a"); break;
        case 'c': options.counters = (unsigned)atoi(optarg); break;
        case 'f': options.first = atoll(optarg); break;
        case 'i': options.interval_s = atof(optarg); break;
        case 'n': options.namespaces = (unsigned)atoi(optarg); break;
        case 'h': options.history = (unsigned)atoi(optarg); break;
        case 'd': options.as_double = true; break;
        case 't': options.terse = true; break;
        case 'r': options.call = (unsigned)atoi(optarg); break;
        default: die("unknown option");
        }
    }
    if(options.port == 0 || options.out == NULL)
        die("--port and --out are needed");
    setvbuf(options.out, NULL, _IOLBF, 1 << 16);
}

/* --- counters ------------------------------------------------------------------------------ */

static void set_value(UA_DataValue *data, UA_Double *as_double, UA_Int64 *as_integer) {
    *as_integer = value;
    *as_double = (UA_Double)value;
    if(options.as_double)
        UA_Variant_setScalar(&data->value, as_double, &UA_TYPES[UA_TYPES_DOUBLE]);
    else
        UA_Variant_setScalar(&data->value, as_integer, &UA_TYPES[UA_TYPES_INT64]);
    data->hasValue = true;
}

static void tick(UA_Server *server, void *context) {
    (void)context;
    UA_DataValue data;
    UA_Double as_double;
    UA_Int64 as_integer;
    value++;
    UA_DataValue_init(&data);
    set_value(&data, &as_double, &as_integer);
    UA_DateTime now = UA_DateTime_now();
    data.sourceTimestamp = data.serverTimestamp = now;
    data.hasSourceTimestamp = data.hasServerTimestamp = true;
    int64_t nanos = (now - UA_DATETIME_UNIX_EPOCH) * 100;
    for(unsigned n = 0; n < options.counters; n++) {
        if(UA_Server_writeDataValue(server, nodes[n], data) != UA_STATUSCODE_GOOD)
            die("a counter cannot be set");
        if(!options.terse)
            fprintf(options.out,
                    "{\"event\":\"set\",\"name\":\"Counter%u\",\"value\":%" PRId64
                    ",\"status\":0,\"time\":%" PRId64 "}\n", n, value, nanos);
    }
    if(options.terse)
        fprintf(options.out,
                "{\"event\":\"tick\",\"counters\":%u,\"value\":%" PRId64 ",\"time\":%" PRId64 "}\n",
                options.counters, value, nanos);
}

static UA_UInt16 add_namespaces(UA_Server *server) {
    for(unsigned n = 0; n < options.namespaces; n++) {
        char name[64];
        snprintf(name, sizeof name, "urn:skerry:other:%u", n);
        UA_Server_addNamespace(server, name);
    }
    return UA_Server_addNamespace(server, NAMESPACE);
}

static void add_counters(UA_Server *server, UA_UInt16 index, UA_HistoryDataGathering *gathering) {
    nodes = (UA_NodeId *)calloc(options.counters, sizeof *nodes);
    char *names = (char *)calloc(options.counters, NAME_MAX_BYTES);
    if(nodes == NULL || names == NULL)
        die("no memory for that many counters");
    UA_Double as_double;
    UA_Int64 as_integer;
    UA_DataValue data;
    UA_DataValue_init(&data);
    set_value(&data, &as_double, &as_integer);
    UA_HistorizingNodeIdSettings historizing = {
        .historizingUpdateStrategy = UA_HISTORIZINGUPDATESTRATEGY_VALUESET,
        .maxHistoryDataResponseSize = 1000,
    };
    if(options.history > 0)
        historizing.historizingBackend =
            UA_HistoryDataBackend_Memory(options.counters, options.history);
    for(unsigned n = 0; n < options.counters; n++) {
        char *name = names + (size_t)n * NAME_MAX_BYTES;
        snprintf(name, NAME_MAX_BYTES, "Counter%u", n);
        UA_VariableAttributes attributes = UA_VariableAttributes_default;
        attributes.value = data.value;
        attributes.displayName = UA_LOCALIZEDTEXT("", name);
        attributes.dataType =
            UA_TYPES[options.as_double ? UA_TYPES_DOUBLE : UA_TYPES_INT64].typeId;
        attributes.accessLevel = UA_ACCESSLEVELMASK_READ;
        if(options.history > 0) {
            attributes.accessLevel |= UA_ACCESSLEVELMASK_HISTORYREAD;
            attributes.historizing = true;
        }
        nodes[n] = UA_NODEID_STRING(index, name);
        UA_StatusCode added = UA_Server_addVariableNode(
            server, nodes[n], UA_NODEID_NUMERIC(0, UA_NS0ID_OBJECTSFOLDER),
            UA_NODEID_NUMERIC(0, UA_NS0ID_ORGANIZES), UA_QUALIFIEDNAME(index, name),
            UA_NODEID_NUMERIC(0, UA_NS0ID_BASEDATAVARIABLETYPE), attributes, NULL, NULL);
        if(added != UA_STATUSCODE_GOOD)
            die("a counter cannot be added");
        if(options.history > 0)
            gathering->registerNodeId(server, gathering->context, &nodes[n], historizing);
    }
}

/* --- sessions ------------------------------------------------------------------------------ */

static UA_StatusCode (*activate_default)(UA_Server *, UA_AccessControl *,
                                         const UA_EndpointDescription *, const UA_ByteString *,
                                         const UA_NodeId *, const UA_ExtensionObject *, void **);

/* Remembers who is there, so that SIGUSR2 can throw everybody out. */
static UA_StatusCode activate(UA_Server *server, UA_AccessControl *control,
                              const UA_EndpointDescription *endpoint,
                              const UA_ByteString *certificate, const UA_NodeId *session,
                              const UA_ExtensionObject *token, void **context) {
    UA_NodeId *place = &sessions[sessions_count++ % SESSIONS_MAX];
    UA_NodeId_clear(place);
    UA_NodeId_copy(session, place);
    return activate_default(server, control, endpoint, certificate, session, token, context);
}

static void on_signal(int number) {
    (void)number;
    close_sessions = 1;
}

static bool input_closed(void) {
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    char ignored[256];
    return poll(&input, 1, 0) > 0 && read(STDIN_FILENO, ignored, sizeof ignored) <= 0;
}

/* --- the server ---------------------------------------------------------------------------- */

static UA_Server *make_server(void) {
    UA_Server *server = UA_Server_new();
    UA_ServerConfig *config = UA_Server_getConfig(server);
    if(UA_ServerConfig_setMinimal(config, (UA_UInt16)options.port, NULL) != UA_STATUSCODE_GOOD)
        die("no configuration");
    char url[64];
    snprintf(url, sizeof url, "opc.tcp://127.0.0.1:%u", options.port);
    UA_String_clear(&config->serverUrls[0]);
    config->serverUrls[0] = UA_STRING_ALLOC(url);
    config->tcpReuseAddr = true;
    /* A tick is a sample for whoever asks for sampling at 0, and an outage is kept for long. */
    config->publishingIntervalLimits.min = 10.0;
    config->lifeTimeCountLimits.max = 100000;
    config->samplingIntervalLimits.min = 5.0;
    config->queueSizeLimits.max = 100000;
    /* More in one answer than most clients' limits foresee. */
    config->maxNotificationsPerPublish = 100000;
    config->reverseReconnectInterval = 500;
    activate_default = config->accessControl.activateSession;
    config->accessControl.activateSession = activate;
    return server;
}

static void on_call(UA_Server *server, UA_UInt64 handle, UA_SecureChannelState state, void *context) {
    (void)server, (void)handle, (void)state, (void)context;
}

/* Has the server connect to its client (Part 6, 7.1.3). */
static void call(UA_Server *server) {
    char url[64];
    snprintf(url, sizeof url, "opc.tcp://127.0.0.1:%u", options.call);
    if(UA_Server_addReverseConnect(server, UA_STRING(url), on_call, NULL, NULL) != UA_STATUSCODE_GOOD)
        die("cannot call");
}

int main(int count, char **words) {
    read_options(count, words);
    value = options.first;
    signal(SIGUSR2, on_signal);
    signal(SIGPIPE, SIG_IGN);
    UA_Server *server = make_server();
    UA_HistoryDataGathering gathering = UA_HistoryDataGathering_Default(options.counters);
    if(options.history > 0)
        UA_Server_getConfig(server)->historyDatabase = UA_HistoryDatabase_default(gathering);
    UA_UInt16 index = add_namespaces(server);
    add_counters(server, index, &gathering);
    if(UA_Server_run_startup(server) != UA_STATUSCODE_GOOD)
        die("cannot start; is the port taken?");
    if(options.call != 0)
        call(server);
    UA_Server_addRepeatedCallback(server, tick, NULL, options.interval_s * 1000.0, NULL);
    fprintf(options.out, "{\"event\":\"serving\",\"namespace\":%u}\n", index);
    while(!input_closed()) {
        UA_Server_run_iterate(server, true);
        if(close_sessions) {
            close_sessions = 0;
            for(unsigned n = 0; n < SESSIONS_MAX; n++)
                UA_Server_closeSession(server, &sessions[n]);
            fprintf(options.out, "{\"event\":\"sessions closed\"}\n");
        }
    }
    UA_Server_run_shutdown(server);
    return 0;
}
