/*
 * Clients of a TLS door, one thread, epoll: keep-alive connections that ask one question again and again.
 *
 *     load PORT CONNECTIONS SECONDS REQUEST_FILE
 *
 * PORT is of 127.0.0.1; no certificate is checked. REQUEST_FILE holds one whole request, head and body. Says "connected",
 * waits for SIGUSR1, asks, and writes one JSON object: answers, events of streams, and their latencies in microseconds as
 * percentiles. An event's latency is from the stamp the engine put into it ("t":"..."), an answer's from its question. Then
 * it keeps its connections until it is ended. A status other than 200 ends it with 1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ROOM = 64 * 1024, MOST = 8 * 1000 * 1000 };

struct client {
    SSL *ssl;
    uint64_t asked;
    size_t have, scanned;
    long body;             /* bytes of a whole answer; -1 in a stream; -2 before the head is there */
    char in[ROOM];
};

static char *request;
static size_t request_size;
static uint32_t *answers, *events;
static size_t answered, heard;

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *why)
{
    fprintf(stderr, "load: %s\n", why);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static void ask(struct client *c)
{
    c->asked = now();
    c->have = c->scanned = 0;
    c->body = -2;
    if (SSL_write(c->ssl, request, (int)request_size) != (int)request_size)
        die("a question was not taken whole");
}

static void note(uint32_t *where, size_t *count, uint64_t since)
{
    if (*count < MOST)
        where[(*count)++] = (uint32_t)((now() - since) / 1000u);
}

static void scan(struct client *c)
{
    char *at;
    while ((at = memmem(c->in + c->scanned, c->have - c->scanned, "\"t\":\"", 5)) && at + 26 <= c->in + c->have) {
        note(events, &heard, strtoull(at + 5, NULL, 10));
        c->scanned = (size_t)(at - c->in) + 26;
    }
}

static int whole(struct client *c)
{
    c->in[c->have] = 0;
    if (c->body == -2) {
        char *end = strstr(c->in, "\r\n\r\n");
        if (!end)
            return 0;
        if (strncmp(c->in, "HTTP/1.1 200", 12))
            die(c->in);
        char *length = strcasestr(c->in, "content-length:");
        c->body = length && length < end ? atol(length + 15) : -1;
        size_t head = (size_t)(end + 4 - c->in);
        memmove(c->in, c->in + head, c->have -= head);
    }
    if (c->body >= 0)
        return c->have >= (size_t)c->body;
    scan(c);
    if (c->have >= 5 && !memcmp(c->in + c->have - 5, "0\r\n\r\n", 5))
        return 1;
    if (c->have > ROOM / 2) { /* what was looked at goes, but for a stamp that may be cut */
        size_t keep = c->have - c->scanned < 64 ? c->have - c->scanned : 64;
        memmove(c->in, c->in + c->have - keep, keep);
        c->have = keep, c->scanned = 0;
    }
    return 0;
}

static void hear(struct client *c)
{
    for (;;) {
        int n = SSL_read(c->ssl, c->in + c->have, (int)(ROOM - 1 - c->have));
        if (n <= 0) {
            if (SSL_get_error(c->ssl, n) != SSL_ERROR_WANT_READ)
                die("the door closed a connection");
            return;
        }
        c->have += (size_t)n;
        if (whole(c)) {
            note(answers, &answered, c->asked);
            ask(c);
        }
    }
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void show(const char *name, uint32_t *all, size_t count)
{
    qsort(all, count, sizeof *all, by_size);
    printf(",\"%s\":{\"count\":%zu,\"p50\":%u,\"p99\":%u}", name, count, count ? all[count / 2] : 0,
           count ? all[count * 99 / 100] : 0);
}

static SSL *dial(SSL_CTX *context, int port)
{
    struct sockaddr_in where = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    inet_aton("127.0.0.1", &where.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (connect(fd, (struct sockaddr *)&where, sizeof where))
        die("no connection");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    SSL *ssl = SSL_new(context);
    SSL_set_fd(ssl, fd);
    if (SSL_connect(ssl) != 1)
        die("no handshake");
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return ssl;
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    int port = atoi(argv[1]), count = atoi(argv[2]), signal;
    sigset_t go;
    sigemptyset(&go);
    sigaddset(&go, SIGUSR1);
    sigprocmask(SIG_BLOCK, &go, NULL);
    double seconds = atof(argv[3]);
    FILE *file = fopen(argv[4], "rb");
    request = malloc(1 << 20);
    if (!file || !request)
        die("no question");
    request_size = fread(request, 1, 1 << 20, file);
    answers = calloc(MOST, sizeof *answers);
    events = calloc(MOST, sizeof *events);
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    struct client *clients = calloc((size_t)count, sizeof *clients);
    int poll = epoll_create1(EPOLL_CLOEXEC);
    for (int n = 0; n < count; n++) {
        clients[n].ssl = dial(context, port);
        struct epoll_event e = { EPOLLIN, { .ptr = &clients[n] } };
        epoll_ctl(poll, EPOLL_CTL_ADD, SSL_get_fd(clients[n].ssl), &e);
    }
    puts("connected"); /* from here on the other side's work is measured */
    fflush(stdout);
    sigwait(&go, &signal);
    uint64_t begun = now(), end = begun + (uint64_t)(seconds * 1e9);
    for (int n = 0; n < count; n++)
        ask(&clients[n]);
    while (now() < end) {
        struct epoll_event ready[64];
        int n = epoll_wait(poll, ready, 64, 100);
        for (int i = 0; i < n; i++)
            hear(ready[i].data.ptr);
    }
    printf("{\"seconds\":%.3f", (double)(now() - begun) / 1e9);
    show("answers", answers, answered);
    show("events", events, heard);
    puts("}");
    fflush(stdout);
    pause(); /* the connections stay until the other side's clock was read */
}
