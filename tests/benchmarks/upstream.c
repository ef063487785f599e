/* A provider that costs next to nothing: the recording upstream of the benchmarks.
 *
 * Usage: upstream PORT PACE_MS ANSWER_FILE STREAM_FILE
 *
 * Answers each request with the bytes of ANSWER_FILE (a whole HTTP answer). Where the
 * request's body asks for a stream, it sends STREAM_FILE's parts instead, which a NUL
 * ends each, one every PACE_MS (or at once, where that is 0). GET /count tells what was
 * received. One thread, epoll, HTTP/1.1 with Content-Length only: enough to stand behind
 * a proxy, and nothing that a benchmark does not use.
 * Where the body has "seed":1 the parts are not paced.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEAD_BYTES 16384
#define MOST_PARTS 256
#define MOST_CONNECTIONS 65536

struct connection {
    char head[HEAD_BYTES];
    size_t head_len;
    long long body_left;
    int in_body, wants_stream, at_once, wants_count, part;
    long long next_ms;
};

static struct connection *connections[MOST_CONNECTIONS];
static int streaming[MOST_CONNECTIONS], streams;
static char *answer, *parts[MOST_PARTS];
static size_t answer_len, part_len[MOST_PARTS];
static int part_count, epoll_fd;
static long long pace_ms, requests, stream_requests, body_bytes, connects;

static long long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static char *slurp(const char *path, size_t *len) {
    FILE *f = fopen(path, "rb");
    if (!f) { perror(path); exit(1); }
    fseek(f, 0, SEEK_END);
    *len = (size_t)ftell(f);
    rewind(f);
    char *data = malloc(*len + 1);
    if (!data || fread(data, 1, *len, f) != *len) { perror(path); exit(1); }
    data[*len] = 0;
    fclose(f);
    return data;
}

static void drop(int fd) {
    for (int i = 0; i < streams; i++)
        if (streaming[i] == fd) { streaming[i] = streaming[--streams]; break; }
    free(connections[fd]);
    connections[fd] = NULL;
    close(fd);
}

static int put(int fd, const char *data, size_t len) {
    while (len) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) continue; /* answers are small: the peer is reading */
        if (n <= 0) return -1;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

static int respond(int fd, struct connection *c) {
    c->in_body = 0;
    if (c->wants_count) {
        char body[256], out[512];
        int n = snprintf(body, sizeof body,
            "{\"requests\":%lld,\"streams\":%lld,\"body_bytes\":%lld,\"connects\":%lld}",
            requests, stream_requests, body_bytes, connects);
        int m = snprintf(out, sizeof out, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            "Content-Length: %d\r\n\r\n%s", n, body);
        return put(fd, out, (size_t)m);
    }
    requests++;
    if (!c->wants_stream) return put(fd, answer, answer_len);
    stream_requests++;
    c->part = 0;
    c->next_ms = 0;
    streaming[streams++] = fd;
    return 0;
}

static int step(int fd, struct connection *c, long long now) {
    while (c->part < part_count && (pace_ms == 0 || c->at_once || c->next_ms <= now)) {
        if (put(fd, parts[c->part], part_len[c->part])) return -1;
        c->part++;
        c->next_ms = now + pace_ms;
    }
    return 0;
}

static int read_some(int fd, struct connection *c) {
    static char buffer[1 << 18];
    for (;;) {
        ssize_t n = recv(fd, buffer, sizeof buffer, 0);
        if (n < 0) return errno == EAGAIN ? 0 : -1;
        if (n == 0) return -1;
        char *at = buffer;
        while (n > 0) {
            if (!c->in_body) {
                size_t room = HEAD_BYTES - 1 - c->head_len, take = (size_t)n < room ? (size_t)n : room;
                size_t before = c->head_len;
                memcpy(c->head + before, at, take);
                c->head_len += take;
                c->head[c->head_len] = 0;
                char *end = strstr(c->head, "\r\n\r\n");
                if (!end) {
                    if (c->head_len >= HEAD_BYTES - 1) return -1;
                    break;
                }
                size_t used = (size_t)(end + 4 - c->head) - before;
                at += used;
                n -= (ssize_t)used;
                *end = 0;
                char *length = strcasestr(c->head, "\r\ncontent-length:");
                c->body_left = length ? atoll(length + 17) : 0;
                c->wants_count = !strncmp(c->head, "GET /count ", 11);
                c->wants_stream = c->at_once = 0;
                c->head_len = 0;
                c->in_body = 1;
            }
            long long take = n < c->body_left ? n : c->body_left;
            if (take && take < 65536 && memmem(at, (size_t)take, "\"seed\":1,", 9)) c->at_once = 1;
            if (take && !c->wants_stream && take < 65536)
                c->wants_stream = memmem(at, (size_t)take, "\"stream\":true", 13) != NULL
                    || memmem(at, (size_t)take, "\"stream\": true", 14) != NULL;
            body_bytes += take;
            c->body_left -= take;
            at += take;
            n -= (ssize_t)take;
            if (c->body_left == 0 && respond(fd, c)) return -1;
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 5) { fprintf(stderr, "usage: upstream PORT PACE_MS ANSWER STREAM\n"); return 2; }
    pace_ms = atoll(argv[2]);
    answer = slurp(argv[3], &answer_len);
    size_t len, start = 0;
    char *stream = slurp(argv[4], &len);
    for (size_t i = 0; i < len && part_count < MOST_PARTS; i++)
        if (!stream[i]) {
            parts[part_count] = stream + start;
            part_len[part_count++] = i - start;
            start = i + 1;
        }
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) {
        perror("bind");
        return 1;
    }
    epoll_fd = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[512];
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int n = epoll_wait(epoll_fd, events, 512, streams ? 1 : -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                int client;
                while ((client = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    if (client >= MOST_CONNECTIONS) { close(client); continue; }
                    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    connections[client] = calloc(1, sizeof(struct connection));
                    connects++;
                    struct epoll_event in = {.events = EPOLLIN, .data.fd = client};
                    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, client, &in);
                }
            } else if (connections[fd] && read_some(fd, connections[fd])) {
                drop(fd);
            }
        }
        long long now = now_ms();
        for (int i = 0; i < streams; i++) {
            int fd = streaming[i];
            struct connection *c = connections[fd];
            if (step(fd, c, now)) {
                drop(fd);
                i--;
            } else if (c->part >= part_count) {
                streaming[i--] = streaming[--streams];
            }
        }
    }
}
