/*
 * An engine that computes nothing: HTTP/1.1 over a unix socket, one thread, epoll.
 *
 *     engine SOCKET TOKENS GAP_US
 *
 * A request whose body holds "stream":true gets TOKENS events, one every GAP_US microseconds (0: as fast as they are
 * read), each in a chunk of its own and stamped with CLOCK_MONOTONIC in nanoseconds. Any other gets 600 bytes of JSON.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS = 4096, ROOM = 256 * 1024, TICK_NS = 200 * 1000 };

struct flow {
    int fd, left;          /* events still to be sent */
    uint64_t due;
    size_t have;
    char in[ROOM];
};

static struct flow *flows[CONNECTIONS];
static int tokens;
static uint64_t gap;
static char whole[2048];
static size_t whole_size;

static const char HEAD[] = "HTTP/1.1 200 OK\r\ndate: Fri, 20 Nov 2026 12:00:00 GMT\r\nserver: uvicorn\r\n"
                           "content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
static const char DONE[] = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int put(struct flow *f, const char *data, size_t size)
{
    while (size) {
        ssize_t n = send(f->fd, data, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            usleep(100); /* only what nobody reads fills a socket here */
            continue;
        }
        if (n <= 0)
            return -1;
        data += n, size -= (size_t)n;
    }
    return 0;
}

static int event(struct flow *f)
{
    char body[512], chunk[600];
    int size = snprintf(body, sizeof body,
                        "data: {\"id\":\"chatcmpl-0123456789abcdef0123456789abcdef\",\"object\":\"chat.completion.chunk\","
                        "\"created\":1,\"model\":\"tiny\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},"
                        "\"logprobs\":null,\"finish_reason\":null}],\"t\":\"%020llu\"}\n\n",
                        (unsigned long long)now());
    size = snprintf(chunk, sizeof chunk, "%x\r\n%s\r\n", size, body);
    f->left--;
    if (put(f, chunk, (size_t)size) < 0)
        return -1;
    return f->left ? 0 : put(f, DONE, sizeof DONE - 1);
}

static void answer(struct flow *f, const char *body)
{
    if (strstr(body, "\"stream\":true") || strstr(body, "\"stream\": true")) {
        put(f, HEAD, sizeof HEAD - 1);
        f->left = tokens;
        f->due = now() + gap;
        if (!gap)
            while (f->left && event(f) == 0)
                ;
    } else
        put(f, whole, whole_size);
}

static void drop(struct flow *f)
{
    close(f->fd);
    flows[f->fd] = NULL;
    free(f);
}

static void hear(struct flow *f)
{
    ssize_t n = recv(f->fd, f->in + f->have, ROOM - 1 - f->have, 0);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN)
            drop(f);
        return;
    }
    f->have += (size_t)n;
    f->in[f->have] = 0;
    char *end = strstr(f->in, "\r\n\r\n");
    if (!end)
        return;
    char *length = strcasestr(f->in, "content-length:");
    size_t body = length && length < end ? strtoul(length + 15, NULL, 10) : 0;
    size_t need = (size_t)(end + 4 - f->in) + body;
    if (f->have < need)
        return;
    f->have = 0;
    answer(f, end + 4);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    tokens = atoi(argv[2]);
    gap = strtoull(argv[3], NULL, 10) * 1000u;
    signal(SIGPIPE, SIG_IGN);
    char body[601];
    memset(body, 'x', 600);
    const char *begin = "{\"id\":\"chatcmpl-0\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"tiny\",\"choices\":"
                        "[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"";
    const char *end = "\"},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":300,"
                      "\"completion_tokens\":60,\"total_tokens\":360}}";
    memcpy(body, begin, strlen(begin));
    memcpy(body + 600 - strlen(end), end, strlen(end));
    body[600] = 0;
    whole_size = (size_t)snprintf(whole, sizeof whole,
                                  "HTTP/1.1 200 OK\r\ndate: Fri, 20 Nov 2026 12:00:00 GMT\r\nserver: uvicorn\r\n"
                                  "content-length: 600\r\ncontent-type: application/json\r\n\r\n%s", body);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un where = { .sun_family = AF_UNIX };
    strncpy(where.sun_path, argv[1], sizeof where.sun_path - 1);
    if (bind(listener, (struct sockaddr *)&where, sizeof where) || listen(listener, 1024)) {
        perror("engine");
        return 1;
    }
    int poll = epoll_create1(EPOLL_CLOEXEC), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct itimerspec tick = { { 0, TICK_NS }, { 0, TICK_NS } };
    if (gap)
        timerfd_settime(timer, 0, &tick, NULL);
    for (int n = 0; n < 2; n++) {
        struct epoll_event e = { EPOLLIN, { .fd = n ? timer : listener } };
        epoll_ctl(poll, EPOLL_CTL_ADD, e.data.fd, &e);
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[64];
        int n = epoll_wait(poll, events, 64, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                int one = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
                if (one < 0)
                    continue;
                if (one >= CONNECTIONS) {
                    close(one);
                    continue;
                }
                flows[one] = calloc(1, sizeof(struct flow));
                flows[one]->fd = one;
                struct epoll_event e = { EPOLLIN, { .fd = one } };
                epoll_ctl(poll, EPOLL_CTL_ADD, one, &e);
            } else if (fd == timer) {
                uint64_t ticks, t = now();
                if (read(timer, &ticks, sizeof ticks) < 0)
                    continue;
                for (int k = 0; k < CONNECTIONS; k++)
                    if (flows[k] && flows[k]->left && flows[k]->due <= t) {
                        flows[k]->due += gap;
                        event(flows[k]); /* one that fails is dropped when its end is heard */
                    }
            } else if (flows[fd])
                hear(flows[fd]);
        }
    }
}
