/* A program as it is written for z/OS: plain sockets, and the real SIOCTTLSCTL ioctl. Prints what it is told.
 *
 *   aware query PORT      connect, query (with certificate), talk
 *   aware start PORT      connect, talk in clear, start TLS, talk, stop TLS, talk in clear
 *   aware serve PORT      accept, query, answer what was said
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ezbztlsc.h"

static int ask(int fd, int request, unsigned char *buffer, int size, struct TTLS_IOCTL *ioc)
{
    memset(ioc, 0, sizeof *ioc);
    ioc->TTLSi_Ver = TTLS_VERSION1;
    ioc->TTLSi_Req_Type = request;
    ioc->TTLSi_BufferPtr = (void *)buffer;
    ioc->TTLSi_BufferLen = size;
    return ioctl(fd, SIOCTTLSCTL, (char *)ioc) == 0 ? 0 : errno;
}

static void tell(const char *what, int number, const struct TTLS_IOCTL *ioc)
{
    printf("%s errno=%d policy=%d conn=%d sec=%d prot=%04x cipher4=%.4s cert=%d\n", what, number, ioc->TTLSi_Stat_Policy,
           ioc->TTLSi_Stat_Conn, ioc->TTLSi_Sec_Type, ioc->TTLSi_SSL_Prot, ioc->TTLSi_Neg_Cipher4,
           (int)ioc->TTLSi_Cert_Len);
}

static void talk(int fd, const char *word)
{
    char answer[100] = "";
    ssize_t count;
    if (write(fd, word, strlen(word)) < 0)
        perror("write");
    count = read(fd, answer, sizeof answer - 1);
    printf("said %s heard %s\n", word, count > 0 ? answer : "nothing");
}

static int serve(struct sockaddr_in place)
{
    struct TTLS_IOCTL ioc;
    char word[100] = "";
    int one = 1, fd, listener = socket(AF_INET, SOCK_STREAM, 0);

    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&place, sizeof place) != 0 || listen(listener, 5) != 0) {
        perror("listen");
        return 1;
    }
    puts("ready");
    fflush(stdout);
    fd = accept(listener, NULL, NULL);
    tell("query", ask(fd, TTLS_QUERY_ONLY, NULL, 0, &ioc), &ioc);
    if (read(fd, word, sizeof word - 1) > 0 && write(fd, word, strlen(word)) > 0)
        printf("heard %s\n", word);
    return 0;
}

int main(int argc, char **argv)
{
    static unsigned char buffer[10240];
    struct TTLS_IOCTL ioc;
    struct sockaddr_in place = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int udp = socket(AF_INET, SOCK_DGRAM, 0);
    int number;

    (void)argc;
    place.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    place.sin_port = htons(atoi(argv[2]));
    if (strcmp(argv[1], "serve") == 0)
        return serve(place);
    number = ask(fd, TTLS_QUERY_ONLY, NULL, 0, &ioc);
    printf("unconnected errno=%d\n", number == ENOTCONN);
    number = ask(udp, TTLS_QUERY_ONLY, NULL, 0, &ioc);
    printf("udp errno=%d\n", number == EPROTOTYPE);
    if (connect(fd, (struct sockaddr *)&place, sizeof place) != 0) {
        perror("connect");
        return 1;
    }
    number = ask(fd, TTLS_QUERY_ONLY, NULL, 0, &ioc);
    tell("query", number, &ioc);
    if (strcmp(argv[1], "query") == 0) {
        number = ask(fd, TTLS_RETURN_CERTIFICATE, buffer, sizeof buffer, &ioc);
        tell("certificate", number, &ioc);
        printf("der=%02x%02x\n", buffer[0], buffer[1]);
        number = ask(fd, TTLS_RETURN_CERTIFICATE, buffer, 10, &ioc);
        printf("small errno=%d needed=%d\n", number == ENOBUFS, ioc.TTLSi_Cert_Len > 10);
        number = ask(fd, TTLS_INIT_CONNECTION, NULL, 0, &ioc);
        printf("init errno=%d\n", number);
        number = ask(fd, TTLS_ALLOW_HSTIMEOUT, NULL, 0, &ioc);
        printf("alone errno=%d\n", number == EPERM);
        ioc.TTLSi_Ver = 0;
        printf("version errno=%d\n", ioctl(fd, SIOCTTLSCTL, (char *)&ioc) != 0 && errno == EINVAL);
        printf("pointer errno=%d\n", ioctl(fd, SIOCTTLSCTL, (char *)1) != 0 && errno == EFAULT);
        talk(fd, "hello");
        return 0;
    }
    talk(fd, "clear");
    number = ask(fd, TTLS_INIT_CONNECTION, NULL, 0, &ioc);
    tell("start", number, &ioc);
    talk(fd, "secret");
    number = ask(fd, TTLS_STOP_CONNECTION, NULL, 0, &ioc);
    tell("stop", number, &ioc);
    talk(fd, "again");
    return 0;
}
