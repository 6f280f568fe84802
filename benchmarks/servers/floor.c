/* The floor: what a C server pays that sends each message to each client with one send(), and does nothing else.
 *
 * One process, one epoll loop, no rooms but "everyone", no timeouts, no partial writes: a client that does not take its
 * frame is dropped. It takes unfragmented, masked text messages below 64 KiB.
 *
 * cc -O2 -o floor floor.c; ./floor PORT
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_FD 65536
#define BUFFER (128 * 1024)

struct client {
    int open;
    size_t have;
    unsigned char *data;
};

static struct client clients[MAX_FD];
static int members[MAX_FD], count;
static int epoll;

/* SHA-1 (RFC 3174) and base64 (RFC 4648), for the handshake. */
static uint32_t rotate(uint32_t x, int n) { return x << n | x >> (32 - n); }

static void sha1(const unsigned char *text, size_t size, unsigned char out[20]) {
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    unsigned char block[128] = {0};
    memcpy(block, text, size);
    block[size] = 0x80;
    size_t blocks = size + 9 > 64 ? 2 : 1;
    uint64_t bits = (uint64_t)size * 8;
    for (int i = 0; i < 8; i++) block[blocks * 64 - 1 - i] = (unsigned char)(bits >> (8 * i));
    for (size_t b = 0; b < blocks; b++) {
        uint32_t w[80];
        for (int i = 0; i < 16; i++) {
            const unsigned char *p = block + b * 64 + i * 4;
            w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
        }
        for (int i = 16; i < 80; i++) w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        uint32_t a = h[0], c = h[1], d = h[2], e = h[3], f = h[4];
        for (int i = 0; i < 80; i++) {
            uint32_t mix, k;
            if (i < 20) mix = (c & d) | (~c & e), k = 0x5A827999;
            else if (i < 40) mix = c ^ d ^ e, k = 0x6ED9EBA1;
            else if (i < 60) mix = (c & d) | (c & e) | (d & e), k = 0x8F1BBCDC;
            else mix = c ^ d ^ e, k = 0xCA62C1D6;
            uint32_t next = rotate(a, 5) + mix + f + k + w[i];
            f = e, e = d, d = rotate(c, 30), c = a, a = next;
        }
        h[0] += a, h[1] += c, h[2] += d, h[3] += e, h[4] += f;
    }
    for (int i = 0; i < 20; i++) out[i] = (unsigned char)(h[i / 4] >> (24 - 8 * (i % 4)));
}

static void base64(const unsigned char *in, size_t size, char *out) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < size; i += 3) {
        uint32_t v = (uint32_t)in[i] << 16 | (i + 1 < size ? (uint32_t)in[i + 1] << 8 : 0) | (i + 2 < size ? in[i + 2] : 0);
        for (int k = 0; k < 4; k++) *out++ = i + (size_t)k <= size ? digits[v >> (18 - 6 * k) & 63] : '=';
    }
    *out = 0;
}

static void drop(int fd) {
    if (!clients[fd].open) return;
    for (int i = 0; i < count; i++)
        if (members[i] == fd) {
            members[i] = members[--count];
            break;
        }
    free(clients[fd].data);
    memset(&clients[fd], 0, sizeof clients[fd]);
    close(fd);
}

static void broadcast(const unsigned char *payload, size_t size) {
    static unsigned char frame[BUFFER];
    size_t head = 2;
    frame[0] = 0x81;
    if (size < 126) frame[1] = (unsigned char)size;
    else frame[1] = 126, frame[2] = (unsigned char)(size >> 8), frame[3] = (unsigned char)size, head = 4;
    memcpy(frame + head, payload, size);
    for (int i = count; i-- > 0;)
        if (send(members[i], frame, head + size, MSG_NOSIGNAL) != (ssize_t)(head + size)) drop(members[i]);
}

/* Answers the handshake; gives the bytes it took, 0 for not yet, -1 for a bad one. */
static long greet(int fd, struct client *client) {
    unsigned char *end = memmem(client->data, client->have, "\r\n\r\n", 4);
    if (!end) return 0;
    char *key = memmem(client->data, client->have, "Sec-WebSocket-Key: ", 19);
    if (!key) return -1;
    char text[64], answer[256], accept[32];
    unsigned char digest[20];
    snprintf(text, sizeof text, "%.24s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key + 19);
    sha1((unsigned char *)text, strlen(text), digest);
    base64(digest, 20, accept);
    int size = snprintf(answer, sizeof answer,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: %s\r\n\r\n", accept);
    if (send(fd, answer, (size_t)size, MSG_NOSIGNAL) != size) return -1;
    members[count++] = fd;
    client->open = 2;
    return end + 4 - client->data;
}

/* Takes one message; gives the bytes it took, 0 for not yet, -1 for the end. */
static long take(struct client *client) {
    unsigned char *data = client->data;
    if (client->have < 6) return 0;
    size_t size = data[1] & 127, head = 6;
    if (size == 127) return -1;
    if (size == 126) {
        if (client->have < 8) return 0;
        size = (size_t)data[2] << 8 | data[3], head = 8;
    }
    if (client->have < head + size) return 0;
    if ((data[0] & 15) == 8) return -1;
    for (size_t i = 0; i < size; i++) data[head + i] ^= data[head - 4 + i % 4];
    if ((data[0] & 15) == 1) broadcast(data + head, size);
    return (long)(head + size);
}

static void readable(int fd) {
    struct client *client = &clients[fd];
    ssize_t got = recv(fd, client->data + client->have, BUFFER - client->have, 0);
    if (got <= 0) {
        if (got == 0 || (errno != EAGAIN && errno != EINTR)) drop(fd);
        return;
    }
    client->have += (size_t)got;
    for (;;) {
        long used = client->open == 1 ? greet(fd, client) : take(client);
        if (used < 0) { drop(fd); return; }
        if (used == 0 || !client->open) return;
        client->have -= (size_t)used;
        memmove(client->data, client->data + used, client->have);
    }
}

int main(int argc, char **argv) {
    int one = 1, server = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    address.sin_port = htons((uint16_t)(argc > 1 ? atoi(argv[1]) : 0));
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(server, (struct sockaddr *)&address, sizeof address) || listen(server, 4096)) return perror("listen"), 1;
    epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = server}, events[1024];
    epoll_ctl(epoll, EPOLL_CTL_ADD, server, &event);
    for (;;) {
        int n = epoll_wait(epoll, events, 1024, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd != server) {
                if (clients[fd].open) readable(fd);
                continue;
            }
            int peer = accept4(server, NULL, NULL, SOCK_NONBLOCK);
            if (peer < 0 || peer >= MAX_FD) continue;
            setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            clients[peer] = (struct client){.open = 1, .data = malloc(BUFFER)};
            event = (struct epoll_event){.events = EPOLLIN, .data.fd = peer};
            epoll_ctl(epoll, EPOLL_CTL_ADD, peer, &event);
        }
    }
}
