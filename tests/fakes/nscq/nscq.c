/* libnvidia-nscq.so.2 as guest/machine/nscq.py calls it, with a state that a test writes and a log that it reads.
 *
 * In the folder $NSCQ_DOUBLE: `state` holds lines "key number", the last line of a key counts; `calls` gets a line for
 * each call; `report<n>` and `chain<n>` are what switch n answers. A key named after a question is the code it returns,
 * with `_answer` the code in the call back, with `_times` how often a switch calls back, and with its number (as in
 * `report0`) it counts for that switch alone.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { uint8_t bytes[16]; } uuid_t;
typedef struct { char data[64]; } label_t;
typedef struct { uint32_t size; uint8_t report[0x2000]; } report_t;
typedef struct { uint8_t chain[0x1400]; uint32_t size; } chain_t;
typedef struct { int8_t rc; void *session; } session_result_t;
typedef void (*fn_t)(void);

const uint32_t nscq_api_version = 2u << 24;
static int session;
static uint8_t input[32];
static uint32_t input_size;

static FILE *at(const char *name, const char *mode) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("NSCQ_DOUBLE"), name);
    return fopen(path, mode);
}

static long value(const char *key, const char *suffix, int device, long otherwise) {
    char any[64], one[64], name[64];
    long number, found = otherwise, own = 0;
    snprintf(any, sizeof any, "%s%s", key, suffix);
    snprintf(one, sizeof one, "%s%s%d", key, suffix, device);
    FILE *file = at("state", "r");
    while (file && fscanf(file, "%63s %ld", name, &number) == 2) {
        if (device >= 0 && !strcmp(name, one)) { found = number; own = 1; }
        if (!own && !strcmp(name, any)) found = number;
    }
    if (file) fclose(file);
    return found;
}

static int8_t called(const char *key, int device) {
    FILE *file = at("calls", "a");
    if (device < 0) fprintf(file, "%s\n", key);
    else fprintf(file, "%s %d\n", key, device);
    fclose(file);
    return (int8_t)value(key, "", device, 0);
}

static size_t filled(const char *kind, int device, uint8_t *buffer, size_t cap) {
    char name[64];
    snprintf(name, sizeof name, "%s%d", kind, device);
    FILE *file = at(name, "r");
    size_t size = file ? fread(buffer, 1, cap, file) : 0;
    if (file) fclose(file);
    return size;
}

static uuid_t uuid_of(int device) {
    uuid_t uuid;
    memset(&uuid, value("twins", "", -1, 0) ? 0xA0 : 0xA0 + device, sizeof uuid);
    return uuid;
}

session_result_t nscq_session_create(uint32_t flags) {
    session_result_t result = {called("create", -1), NULL};
    if (flags == 1 && result.rc >= 0) result.session = &session; /* a warning comes with a session */
    return result;
}

void nscq_session_destroy(void *which) { called(which == &session ? "destroy" : "destroy-another", -1); }

int8_t nscq_uuid_to_label(const uuid_t *uuid, label_t *label, uint32_t flags) {
    (void)flags;
    memset(label, 0, sizeof *label);
    snprintf(label->data, sizeof label->data, value("label", "", -1, 0) ? "../%d" : "SW-%d", uuid->bytes[0] - 0xA0);
    return (int8_t)value("label_code", "", -1, 0);
}

int8_t nscq_session_set_input(void *which, uint32_t flags, void *data, uint32_t size) {
    int8_t code = called("input", -1);
    if (which != &session || flags || size != sizeof input) return -5;
    memcpy(input, data, size);
    input_size = size;
    return code;
}

static void answer(const char *what, int device, fn_t callback, void *user) {
    uuid_t uuid = uuid_of((int)value(what, "_device", device, device));
    int8_t code = (int8_t)value(what, "_answer", device, 0);
    if (!strcmp(what, "report")) {
        report_t report = {0};
        report.size = (uint32_t)filled(what, device, report.report, sizeof report.report);
        if (value("fresh", "", device, 1)) memcpy(report.report + 4, input, input_size);
        report.size = (uint32_t)value(what, "_size", device, report.size);
        ((void (*)(const uuid_t *, int8_t, const report_t, void *))callback)(&uuid, code, report, user);
    } else if (!strcmp(what, "chain")) {
        chain_t chain = {0};
        chain.size = (uint32_t)filled(what, device, chain.chain, sizeof chain.chain);
        chain.size = (uint32_t)value(what, "_size", device, chain.size);
        ((void (*)(const uuid_t *, int8_t, const chain_t, void *))callback)(&uuid, code, chain, user);
    } else {
        int8_t found = (int8_t)value(what, "_value", device, strcmp(what, "arch") ? 3 : 2);
        ((void (*)(const uuid_t *, int8_t, int8_t, void *))callback)(
            value("nameless", "", -1, 0) ? NULL : &uuid, code, found, user);
    }
}

int8_t nscq_session_path_observe(void *which, const char *path, fn_t callback, void *user, uint32_t flags) {
    static const char *const questions[][2] = {
        {"id/arch", "arch"}, {"config/pcie_mode", "mode"}, {"config/certificate", "chain"},
        {"config/attestation_report", "report"},
    };
    int device, used = 0;
    if (which != &session || flags) return -5;
    if (!strcmp(path, "/drv/nvswitch/{device}/uuid")) {
        int8_t code = called("uuid", -1);
        for (device = 0; device < value("count", "", -1, 4); device++) {
            uuid_t uuid = uuid_of(device);
            ((void (*)(const uuid_t *, int8_t, const uuid_t *, void *))callback)(
                &uuid, (int8_t)value("uuid_answer", "", device, 0), &uuid, user);
        }
        return code;
    }
    if (sscanf(path, "/SW-%d/%n", &device, &used) != 1 || !used) return -2;
    for (size_t i = 0; i < sizeof questions / sizeof *questions; i++) {
        if (strcmp(path + used, questions[i][0])) continue;
        int8_t code = called(questions[i][1], device);
        for (long n = value(questions[i][1], "_times", device, 1); n > 0; n--)
            answer(questions[i][1], device, callback, user);
        return code;
    }
    return -1;
}
