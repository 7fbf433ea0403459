/* attls_ioctl: the SIOCTTLSCTL ioctl, carried to the attls daemon. One file, nothing beyond libc.
 *
 * The request goes to $ATTLS_RUN_DIR/control.sock (/run/attls/control.sock) together with the connection's own
 * descriptor, which is the permission. Like ioctl it returns when the request is done, and on a non-blocking socket at
 * once: -1 with EINPROGRESS, and the caller waits until its socket is writable and queries.
 */
#include "ezbztlsc.h"

#undef ioctl

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LARGEST_BUFFER 65536

static __thread int last_junior;

int attls_errno2(void)
{
    return last_junior;
}

static int failed(int sock, char *packet, int number)
{
    if (sock >= 0)
        close(sock);
    free(packet);
    errno = number;
    return -1;
}

int attls_ioctl(int fd, struct TTLS_IOCTL *request)
{
    const char *directory = getenv("ATTLS_RUN_DIR");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof fd)];
    } control;
    struct iovec part;
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    struct cmsghdr *passed;
    size_t buffer = 0;
    ssize_t count;
    int32_t result[2];
    int sock;
    char *packet;

    last_junior = JRUnexpectedErr;
    if (request->TTLSi_BufferPtr != NULL)
        buffer = request->TTLSi_BufferLen < LARGEST_BUFFER ? request->TTLSi_BufferLen : LARGEST_BUFFER;
    if (directory == NULL || *directory == '\0')
        directory = "/run/attls";
    if ((size_t)snprintf(address.sun_path, sizeof address.sun_path, "%s/control.sock", directory) >=
        sizeof address.sun_path)
        return failed(-1, NULL, ENAMETOOLONG);
    packet = malloc(sizeof result + sizeof *request + LARGEST_BUFFER);
    if (packet == NULL)
        return failed(-1, NULL, ENOMEM);
    sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (sock < 0)
        return failed(sock, packet, errno);
    while (connect(sock, (struct sockaddr *)&address, sizeof address) < 0)
        if (errno != EINTR)
            return failed(sock, packet, errno);

    memcpy(packet, request, sizeof *request);
    part.iov_base = packet;
    part.iov_len = sizeof *request;
    if (request->TTLSi_Ver == TTLS_VERSION2 && buffer > 0) {
        memcpy(packet + sizeof *request, request->TTLSi_BufferPtr, buffer);
        part.iov_len += buffer;
    }
    memset(&control, 0, sizeof control);
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    passed = CMSG_FIRSTHDR(&message);
    passed->cmsg_level = SOL_SOCKET;
    passed->cmsg_type = SCM_RIGHTS;
    passed->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(passed), &fd, sizeof fd);
    while (sendmsg(sock, &message, MSG_NOSIGNAL) < 0)
        if (errno != EINTR)
            return failed(sock, packet, errno);

    do
        count = recv(sock, packet, sizeof result + sizeof *request + LARGEST_BUFFER, 0);
    while (count < 0 && errno == EINTR);
    if (count < (ssize_t)(sizeof result + sizeof *request))
        return failed(sock, packet, count < 0 ? errno : EIO);
    memcpy(result, packet, sizeof result);
    count -= sizeof result + sizeof *request;
    {
        void *pointer = request->TTLSi_BufferPtr;
        memcpy(request, packet + sizeof result, sizeof *request);
        request->TTLSi_BufferPtr = pointer;
        if (pointer != NULL && (size_t)count <= buffer)
            memcpy(pointer, packet + sizeof result + sizeof *request, (size_t)count);
    }
    close(sock);
    free(packet);
    last_junior = result[1];
    if (result[0] != 0) {
        errno = result[0];
        return -1;
    }
    return 0;
}

int attls_any_ioctl(int fd, unsigned long command, ...)
{
    va_list arguments;
    void *argument;

    va_start(arguments, command);
    argument = va_arg(arguments, void *);
    va_end(arguments);
    if ((unsigned int)command == SIOCTTLSCTL)
        return attls_ioctl(fd, argument);
    return ioctl(fd, command, argument);
}
