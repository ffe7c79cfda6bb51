/* The load generator of the echo benchmarks: N connections, each with one batch of requests in flight.
 *
 * One thread, one epoll set. Every connection sends `--batch` messages of `--size` bytes in one send,
 * waits until as many bytes have come back, compares them with what it sent, and sends the next batch
 * at once (a closed loop). It knows nothing about the server: the same program loads all of them.
 *
 * It is written in C because it must not be the bottleneck: about 3 us a request, less than any of the
 * servers needs. It is pinned to a CPU that the server does not use (`--cpu`).
 *
 * What is measured is the CPU time of the server process (`--pid`), read through its process clock
 * (clock_getcpuclockid(3): nanoseconds, user and system time, all threads) at the two edges of the
 * measuring window, by the process that counts the requests. So count and clock belong to the same
 * window, and the server needs neither a thread nor a signal handler for it.
 *
 * `--spin` polls instead of sleeping in epoll_wait. A server on the same machine otherwise pays, in its
 * own send(2), for waking the sleeping generator (in a virtual machine an interrupt to another CPU costs
 * more than the echo itself); it would pay nothing for a client on another machine. Only of use with a
 * CPU of its own.
 *
 * A message is a line: connection, sequence number and index in hexadecimal, filler, '\n'. Sequence
 * numbers make an answer to an older request an error.
 *
 * Prints one line of JSON, exit status 0; on any error a message on stderr, exit status 1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    HEAD_BYTES = 17,          /* "%04x %08x %02x " */
    MAX_BATCH_BYTES = 16384,  /* always fits an idle socket's send buffer: a short send is an error */
    MAX_CONNECTIONS = 10000,
    MAX_EVENTS = 256,
    STALL_S = 5, /* without any answer for so long: the server hangs */
};

/* Latencies: 64 linear steps in each power of two, so that a percentile is exact to 1.6 %. */
enum { STEPS = 64, STEP_BITS = 6, BUCKETS = STEPS * 40 };

struct connection {
    int fd;
    uint32_t sequence;
    size_t received;
    int64_t sent_at_ns;
    char *message; /* batch * size bytes: what was sent, and what must come back */
};

static long port, connections = 1, size = 1024, batch = 1, cpu = -1, server_pid;
static double warmup_s = 0.3, window_s = 1.0;
static int spin;
static size_t batch_bytes;
static uint64_t histogram[BUCKETS];

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("loadgen: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static int64_t clock_ns(clockid_t clock) {
    struct timespec t;
    if (clock_gettime(clock, &t)) fail("reading a clock: %s (has the server ended?)", strerror(errno));
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

static int bucket_of(int64_t ns) {
    uint64_t value = ns < 0 ? 0 : (uint64_t)ns;
    if (value < STEPS) return (int)value;
    int shift = 63 - __builtin_clzll(value) - STEP_BITS;
    int bucket = ((shift + 1) << STEP_BITS) + (int)((value >> shift) - STEPS);
    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

/* The middle of a bucket, in ns. */
static double bucket_ns(int bucket) {
    if (bucket < STEPS) return bucket;
    int shift = (bucket >> STEP_BITS) - 1;
    return ((double)(STEPS + (bucket & (STEPS - 1))) + 0.5) * (double)(1ULL << shift);
}

static double percentile_us(double share, uint64_t total) {
    uint64_t seen = 0, wanted = (uint64_t)(share * (double)total);
    for (int i = 0; i < BUCKETS; i++) {
        seen += histogram[i];
        if (seen && seen >= wanted) return bucket_ns(i) / 1000.0;
    }
    return 0.0;
}

static void write_hex(char *at, uint32_t value, int digits) {
    for (int i = digits - 1; i >= 0; i--, value >>= 4) at[i] = "0123456789abcdef"[value & 15];
}

static void open_connection(struct connection *c, int index) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0) fail("socket: %s", strerror(errno));
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address)) fail("connect: %s", strerror(errno));
    int on = 1;
    /* Closing by RST: hundreds of connections a run, and none is left in TIME_WAIT. */
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK)) fail("fcntl: %s", strerror(errno));
    c->message = malloc(batch_bytes);
    if (!c->message) fail("out of memory");
    for (long i = 0; i < batch; i++) {
        char *line = c->message + i * size;
        memset(line, 'a' + (int)((index + i) % 26), (size_t)size);
        line[4] = line[13] = line[16] = ' ';
        write_hex(line, (uint32_t)index, 4);
        write_hex(line + 14, (uint32_t)i, 2);
        line[size - 1] = '\n';
    }
}

static void send_batch(struct connection *c) {
    c->sequence++;
    for (long i = 0; i < batch; i++) write_hex(c->message + i * size + 5, c->sequence, 8);
    c->received = 0;
    c->sent_at_ns = now_ns();
    ssize_t sent = send(c->fd, c->message, batch_bytes, MSG_NOSIGNAL);
    if (sent < 0) fail("send: %s", strerror(errno));
    if ((size_t)sent != batch_bytes) fail("a short send of %zd bytes", sent);
}

/* Reads what has come; returns 1 when the whole batch has been answered. */
static int receive(struct connection *c) {
    static char buffer[MAX_BATCH_BYTES + 1]; /* one more than is due, so that a surplus is seen */
    ssize_t got = recv(c->fd, buffer, sizeof buffer, 0);
    if (got < 0) {
        if (errno == EAGAIN || errno == EINTR) return 0;
        fail("recv: %s", strerror(errno));
    }
    if (got == 0) fail("the server closed a connection");
    if ((size_t)got > batch_bytes - c->received) fail("more bytes came back than were sent");
    if (memcmp(buffer, c->message + c->received, (size_t)got)) fail("other bytes came back than were sent");
    c->received += (size_t)got;
    return c->received == batch_bytes;
}

static void parse(int argc, char **argv) {
    static const struct option options[] = {
        {"port", required_argument, 0, 'p'},    {"connections", required_argument, 0, 'n'},
        {"size", required_argument, 0, 's'},    {"batch", required_argument, 0, 'b'},
        {"warmup", required_argument, 0, 'w'},  {"seconds", required_argument, 0, 't'},
        {"cpu", required_argument, 0, 'c'},     {"pid", required_argument, 0, 'i'},
        {"spin", no_argument, 0, 'x'},          {0, 0, 0, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "", options, 0)) != -1;) {
        switch (option) {
        case 'p': port = atol(optarg); break;
        case 'n': connections = atol(optarg); break;
        case 's': size = atol(optarg); break;
        case 'b': batch = atol(optarg); break;
        case 'w': warmup_s = atof(optarg); break;
        case 't': window_s = atof(optarg); break;
        case 'c': cpu = atol(optarg); break;
        case 'i': server_pid = atol(optarg); break;
        case 'x': spin = 1; break;
        default: fail("usage: loadgen --port P --pid SERVER [--connections N] [--size BYTES] [--batch K] "
                      "[--warmup S] [--seconds S] [--cpu C] [--spin]");
        }
    }
    batch_bytes = (size_t)(batch * size);
    if (port < 1 || port > 65535) fail("--port is missing or wrong");
    if (server_pid < 1) fail("--pid is missing or wrong");
    if (connections < 1 || connections > MAX_CONNECTIONS) fail("--connections: 1 to %d", MAX_CONNECTIONS);
    if (size <= HEAD_BYTES || batch < 1 || batch > 255 || batch_bytes > MAX_BATCH_BYTES)
        fail("--size: more than %d; --batch: 1 to 255; a batch: at most %d bytes", HEAD_BYTES, MAX_BATCH_BYTES);
}

int main(int argc, char **argv) {
    parse(argc, argv);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* never outlive the harness */
    if (cpu >= 0) {
        cpu_set_t mask;
        CPU_ZERO(&mask);
        CPU_SET((int)cpu, &mask);
        if (sched_setaffinity(0, sizeof mask, &mask)) fail("pinning to CPU %ld: %s", cpu, strerror(errno));
    }
    clockid_t server_clock;
    int error = clock_getcpuclockid((pid_t)server_pid, &server_clock);
    if (error) fail("the server's CPU clock: %s", strerror(error));

    int poller = epoll_create1(EPOLL_CLOEXEC);
    struct connection *all = calloc((size_t)connections, sizeof *all);
    if (poller < 0 || !all) fail("epoll_create1 or calloc: %s", strerror(errno));
    for (long i = 0; i < connections; i++) {
        open_connection(&all[i], (int)i);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, all[i].fd, &event)) fail("epoll_ctl: %s", strerror(errno));
    }
    for (long i = 0; i < connections; i++) send_batch(&all[i]);

    int measuring = 0;
    int64_t edge_ns = now_ns() + (int64_t)(warmup_s * 1e9), stalled_ns = now_ns();
    int64_t begin_ns = 0, server_begin_ns = 0, own_begin_ns = 0, longest_ns = 0;
    uint64_t batches = 0, answered = 0;
    struct epoll_event events[MAX_EVENTS];
    for (;;) {
        int ready = epoll_wait(poller, events, MAX_EVENTS, spin ? 0 : 100);
        if (ready < 0 && errno != EINTR) fail("epoll_wait: %s", strerror(errno));
        int64_t now = now_ns();
        if (ready > 0) stalled_ns = now;
        if (now - stalled_ns > (int64_t)STALL_S * 1000000000) fail("no answer for %d s", STALL_S);
        if (now >= edge_ns) {
            if (measuring) break;
            measuring = 1;
            server_begin_ns = clock_ns(server_clock);
            own_begin_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
            begin_ns = now_ns();
            edge_ns = begin_ns + (int64_t)(window_s * 1e9);
        }
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (!receive(c)) continue;
            if (measuring) {
                int64_t took_ns = now_ns() - c->sent_at_ns;
                if (took_ns > longest_ns) longest_ns = took_ns;
                histogram[bucket_of(took_ns)]++;
                batches++;
            }
            answered++;
            send_batch(c);
        }
    }
    int64_t server_ns = clock_ns(server_clock) - server_begin_ns;
    int64_t own_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own_begin_ns;
    int64_t took_ns = now_ns() - begin_ns;
    if (!batches) fail("no request was answered inside the measuring window (%lu before it)", answered);
    printf("{\"requests\": %llu, \"seconds\": %.6f, \"server_cpu_ns\": %lld, \"loadgen_cpu_ns\": %lld, "
           "\"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f}\n",
           (unsigned long long)batches * (unsigned long long)batch, (double)took_ns / 1e9,
           (long long)server_ns, (long long)own_ns, percentile_us(0.5, batches), percentile_us(0.9, batches),
           percentile_us(0.99, batches), percentile_us(0.999, batches), (double)longest_ns / 1000.0);
    return 0;
}
