/* libnvidia-ml.so.1 as nvidia-ml-py calls it, with a state that a test writes and a log of calls that it reads.
 *
 * In the folder $NVML_DOUBLE: `state` holds lines "key number", the last line of a key counts, and set-ready adds one;
 * `calls` gets a line for each call; `report<n>` and `chain<n>` are what device n answers. Keys named after a call are
 * the code it returns. Struct sizes and versions are checked as the driver does.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SETTINGS_V1 0x1000014u
enum { OK = 0, INVALID_ARGUMENT = 2, VERSION_MISMATCH = 25 };

typedef struct { unsigned environment, cc, devtools; } state_t;
typedef struct { unsigned version, environment, cc, devtools, multi; } settings_t;
typedef struct { unsigned cpu, gpus; } caps_t;
typedef struct { unsigned size, attestation_size; unsigned char chain[0x1000], attestation[0x1400]; } chain_t;
typedef struct {
    unsigned cec_present, size, cec_size;
    unsigned char nonce[32], report[0x2000], cec[0x1000];
} report_t;

static FILE *at(const char *name, const char *mode) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("NVML_DOUBLE"), name);
    return fopen(path, mode);
}

static long value(const char *key, long otherwise) {
    char name[64];
    long number, found = otherwise;
    FILE *file = at("state", "r");
    while (file && fscanf(file, "%63s %ld", name, &number) == 2)
        if (!strcmp(name, key)) found = number;
    if (file) fclose(file);
    return found;
}

static int called(const char *line, const char *key) {
    FILE *file = at("calls", "a");
    fprintf(file, "%s\n", line);
    fclose(file);
    return (int)value(key, OK);
}

static unsigned filled(const char *kind, unsigned device, unsigned char *buffer, size_t cap) {
    char name[64];
    snprintf(name, sizeof name, "%s%u", kind, device);
    FILE *file = at(name, "r");
    if (!file) return 0;
    size_t size = fread(buffer, 1, cap, file);
    fclose(file);
    return (unsigned)size;
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; return called("init", "init"); }
int nvmlShutdown(void) { return called("shutdown", "shutdown"); }
const char *nvmlErrorString(int code) { (void)code; return "An Error of the Double"; }

int nvmlSystemGetDriverVersion(char *version, unsigned size) {
    snprintf(version, size, "610.43.02");
    return called("driver", "driver");
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = (unsigned)value("count", 1);
    return called("count", "get_count");
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if (index >= (unsigned)value("count", 1)) return INVALID_ARGUMENT;
    *device = (void *)(size_t)(index + 1);
    return (int)value("handle", OK);
}

int nvmlDeviceGetArchitecture(void *device, unsigned *architecture) {
    (void)device;
    *architecture = (unsigned)value("architecture", 9);
    return OK;
}

int nvmlSystemGetConfComputeSettings(settings_t *s) {
    int code = called("settings", "settings");
    if (s->version != SETTINGS_V1) return VERSION_MISMATCH;
    if (code) return code;
    s->environment = (unsigned)value("environment", 2);
    s->cc = (unsigned)value("cc", 1);
    s->devtools = (unsigned)value("devtools", 0);
    s->multi = (unsigned)value("multi", 0);
    return OK;
}

int nvmlSystemGetConfComputeState(state_t *s) {
    s->environment = (unsigned)value("environment", 2);
    s->cc = (unsigned)value("cc", 1);
    s->devtools = (unsigned)value("devtools", 0);
    return called("state", "state");
}

int nvmlSystemGetConfComputeCapabilities(caps_t *c) {
    c->cpu = (unsigned)value("cpu", 3);
    c->gpus = 1;
    return called("capabilities", "capabilities");
}

int nvmlSystemGetConfComputeGpusReadyState(unsigned *ready) {
    *ready = (unsigned)value("ready", 0);
    return called("ready", "get_ready");
}

int nvmlSystemSetConfComputeGpusReadyState(unsigned ready) {
    char line[32];
    snprintf(line, sizeof line, "set-ready %u", ready);
    int code = called(line, "set_ready");
    if (!code && value("fallen", 0)) code = INVALID_ARGUMENT; /* once it fell it stays down, as in the driver */
    if (!code && value("set_sticks", 1)) {
        FILE *file = at("state", "a");
        if (!ready && value("ready", 0)) fprintf(file, "fallen 1\n");
        fprintf(file, "ready %u\n", ready);
        fclose(file);
    }
    return code;
}

int nvmlDeviceGetConfComputeGpuAttestationReport(void *device, report_t *r) {
    static atomic_int inside;
    char line[128];
    unsigned index = (unsigned)(size_t)device - 1, n;
    n = (unsigned)snprintf(line, sizeof line, "report %u ", index);
    for (unsigned i = 0; i < sizeof r->nonce; i++) n += (unsigned)sprintf(line + n, "%02x", r->nonce[i]);
    int code = called(line, "report");
    if (atomic_fetch_add(&inside, 1)) called("overlap", "overlap");
    usleep((unsigned)value("slow_us", 0));
    r->size = filled("report", index, r->report, sizeof r->report);
    if (value("fresh", 1)) memcpy(r->report + 4, r->nonce, sizeof r->nonce);
    r->size = (unsigned)value("report_size", r->size);
    atomic_fetch_sub(&inside, 1);
    return code;
}

int nvmlDeviceGetConfComputeGpuCertificate(void *device, chain_t *c) {
    char line[32];
    unsigned index = (unsigned)(size_t)device - 1;
    snprintf(line, sizeof line, "certificate %u", index);
    c->attestation_size = filled("chain", index, c->attestation, sizeof c->attestation);
    c->attestation_size = (unsigned)value("chain_size", c->attestation_size);
    return called(line, "certificate");
}
