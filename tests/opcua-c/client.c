/* A bare OPC-UA client on open62541, to measure others against: it monitors the counters of
 * server.c and counts what comes.
 *
 *   opcua-client --port N --counters N --out FILE [--publishing SECONDS]
 *
 * Writes a JSON line once it monitors all of them, and then ever again how many values have come,
 * how many of them said that values before them were given up, and how long 99 of 100 of them took
 * since the server's timestamp. Ends when its standard input closes.
 */
#include <open62541/client.h>
#include <open62541/client_config_default.h>
#include <open62541/client_highlevel.h>
#include <open62541/client_subscriptions.h>

#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAMESPACE "urn:skerry:tests"
#define ITEMS_AT_ONCE 500
#define QUEUE_VALUES 10000
#define REPORT_EVERY (200 * UA_DATETIME_MSEC)
#define NAME_MAX_BYTES 24
#define OVERFLOW_BITS 0x0480
/* Of a value's way here; what takes longer counts as this long. */
#define LATENCY_MAX_MS 10000

static uint64_t values;
static uint64_t overflows;
static uint64_t took_ms[LATENCY_MAX_MS + 1];

static void die(const char *what) {
    fprintf(stderr, "opcua-client: %s\n", what);
    exit(1);
}

static void on_value(UA_Client *client, UA_UInt32 subscription, void *subscription_context,
                     UA_UInt32 item, void *item_context, UA_DataValue *data) {
    (void)client, (void)subscription, (void)subscription_context, (void)item, (void)item_context;
    values++;
    if(data->hasStatus && (data->status & OVERFLOW_BITS) == OVERFLOW_BITS)
        overflows++;
    if(data->hasServerTimestamp) {
        UA_DateTime took = (UA_DateTime_now() - data->serverTimestamp) / UA_DATETIME_MSEC;
        took_ms[took < 0 ? 0 : took > LATENCY_MAX_MS ? LATENCY_MAX_MS : took]++;
    }
}

/* How many milliseconds 99 of 100 values took at most. */
static unsigned p99_ms(void) {
    uint64_t all = 0, below = 0;
    for(unsigned ms = 0; ms <= LATENCY_MAX_MS; ms++)
        all += took_ms[ms];
    for(unsigned ms = 0; ms <= LATENCY_MAX_MS; ms++) {
        below += took_ms[ms];
        if(below * 100 >= all * 99)
            return ms;
    }
    return LATENCY_MAX_MS;
}

static void report(FILE *out) {
    fprintf(out,
            "{\"event\":\"received\",\"values\":%" PRIu64 ",\"overflows\":%" PRIu64
            ",\"p99_ms\":%u}\n",
            values, overflows, p99_ms());
}

static UA_UInt16 counters_namespace(UA_Client *client) {
    UA_String uri = UA_STRING(NAMESPACE);
    UA_UInt16 index = 0;
    if(UA_Client_NamespaceGetIndex(client, &uri, &index) != UA_STATUSCODE_GOOD)
        die("the server does not have the counters' namespace");
    return index;
}

static void monitor(UA_Client *client, UA_UInt32 subscription, unsigned from, unsigned count) {
    static UA_MonitoredItemCreateRequest items[ITEMS_AT_ONCE];
    static char names[ITEMS_AT_ONCE][NAME_MAX_BYTES];
    static UA_Client_DataChangeNotificationCallback callbacks[ITEMS_AT_ONCE];
    UA_UInt16 index = counters_namespace(client);
    for(unsigned n = 0; n < count; n++) {
        snprintf(names[n], NAME_MAX_BYTES, "Counter%u", from + n);
        items[n] = UA_MonitoredItemCreateRequest_default(UA_NODEID_STRING(index, names[n]));
        /* Zero: whatever is written is a sample. */
        items[n].requestedParameters.samplingInterval = 0.0;
        items[n].requestedParameters.queueSize = QUEUE_VALUES;
        callbacks[n] = on_value;
    }
    UA_CreateMonitoredItemsRequest request;
    UA_CreateMonitoredItemsRequest_init(&request);
    request.subscriptionId = subscription;
    request.timestampsToReturn = UA_TIMESTAMPSTORETURN_BOTH;
    request.itemsToCreate = items;
    request.itemsToCreateSize = count;
    UA_CreateMonitoredItemsResponse response =
        UA_Client_MonitoredItems_createDataChanges(client, request, NULL, callbacks, NULL);
    if(response.resultsSize != count)
        die("the server does not monitor the counters");
    for(size_t n = 0; n < count; n++)
        if(response.results[n].statusCode != UA_STATUSCODE_GOOD)
            die("the server does not monitor a counter");
    UA_CreateMonitoredItemsResponse_clear(&response);
}

static bool input_closed(void) {
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    char ignored[256];
    return poll(&input, 1, 0) > 0 && read(STDIN_FILENO, ignored, sizeof ignored) <= 0;
}

int main(int count, char **words) {
    static const struct option known[] = {
        {"port", required_argument, NULL, 'p'},
        {"out", required_argument, NULL, 'o'},
        {"counters", required_argument, NULL, 'c'},
        {"publishing", required_argument, NULL, 'i'},
        {NULL, 0, NULL, 0},
    };
    unsigned port = 0, counters = 0;
    double publishing_s = 0.1;
    FILE *out = NULL;
    for(int name; (name = getopt_long(count, words, "", known, NULL)) != -1;) {
        switch(name) {
        case 'p': port = (unsigned)atoi(optarg); break;
        case 'o': out = fopen(optarg, "a"); break;
        case 'c': counters = (unsigned)atoi(optarg); break;
        case 'i': publishing_s = atof(optarg); break;
        default: die("unknown option");
        }
    }
    if(port == 0 || counters == 0 || out == NULL)
        die("--port, --counters and --out are needed");
    setvbuf(out, NULL, _IOLBF, 1 << 12);

    UA_Client *client = UA_Client_new();
    UA_ClientConfig_setDefault(UA_Client_getConfig(client));
    char url[64];
    snprintf(url, sizeof url, "opc.tcp://127.0.0.1:%u", port);
    if(UA_Client_connect(client, url) != UA_STATUSCODE_GOOD)
        die("cannot connect");
    UA_CreateSubscriptionRequest request = UA_CreateSubscriptionRequest_default();
    request.requestedPublishingInterval = publishing_s * 1000.0;
    UA_CreateSubscriptionResponse subscription =
        UA_Client_Subscriptions_create(client, request, NULL, NULL, NULL);
    if(subscription.responseHeader.serviceResult != UA_STATUSCODE_GOOD)
        die("the server makes no subscription");
    for(unsigned from = 0; from < counters; from += ITEMS_AT_ONCE) {
        unsigned left = counters - from;
        monitor(client, subscription.subscriptionId, from,
                left < ITEMS_AT_ONCE ? left : ITEMS_AT_ONCE);
    }
    fprintf(out, "{\"event\":\"monitoring\",\"counters\":%u}\n", counters);
    UA_DateTime due = UA_DateTime_nowMonotonic();
    while(!input_closed()) {
        if(UA_Client_run_iterate(client, 100) != UA_STATUSCODE_GOOD)
            die("the connection broke off");
        if(UA_DateTime_nowMonotonic() >= due) {
            due += REPORT_EVERY;
            report(out);
        }
    }
    report(out);
    UA_Client_delete(client);
    return 0;
}
