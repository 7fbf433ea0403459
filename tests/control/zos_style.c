/* A program as they are written for z/OS: C89, the published names only, versions 1 and 2 of the structure.
 *
 * Called with the descriptor of a connection as server of an application-controlled policy's client role. What it
 * prints is compared by tests/control/test_zos_source.py.
 */
#define _OPEN_SYS_SOCK_EXT
#include <sys/types.h>
#include <sys/socket.h>
#include <sys/ioctl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ezbztlsc.h>

static const char *policies[] = {"reserved", "off", "no policy", "not enabled", "enabled", "application controlled"};
static const char *connections[] = {"reserved", "not secure", "handshake in progress", "secure"};

static struct {
    struct TTLSHeader header;
    struct TTLSQuadruplet quad[5];
    char data[4096];
} buffer;

static int call(int sock, struct TTLS_IOCTL *ioc, const char *what)
{
    int rc = ioctl(sock, SIOCTTLSCTL, (char *)ioc);

    if (rc < 0)
        printf("%s: rc %d errno %s errno2 %04x\n", what, rc, errno == EPERM ? "EPERM" : errno == ENOBUFS ? "ENOBUFS"
               : errno == EINVAL ? "EINVAL" : errno == EALREADY ? "EALREADY" : errno == EPROTO ? "EPROTO" : "other",
               __errno2() & 0xffff);
    else
        printf("%s: %s, %s\n", what, policies[ioc->TTLSi_Stat_Policy], connections[ioc->TTLSi_Stat_Conn]);
    return rc;
}

static void start(struct TTLS_IOCTL *ioc, int version, int request)
{
    memset(ioc, 0, sizeof(*ioc));
    ioc->TTLSi_Ver = version;
    ioc->TTLSi_Req_Type = request;
}

static void item(const char *what, struct TTLSQuadruplet *quad)
{
    if (quad->TTLSQ_Offset == 0)
        printf("%s missing\n", what);
    else
        printf("%s %s\n", what, (char *)&buffer + quad->TTLSQ_Offset);
}

int main(int argc, char *argv[])
{
    struct TTLS_IOCTL ioc;
    char certificate[10240];
    int sock = atoi(argv[argc - 1]);

    printf("sizeof %d %d\n", (int)sizeof(struct TTLS_IOCTL), (int)sizeof(struct TTLSHeader));

    /* version 1 */
    start(&ioc, 0, TTLS_QUERY_ONLY);
    call(sock, &ioc, "version 0");
    start(&ioc, TTLS_VERSION1, TTLS_QUERY_ONLY);
    call(sock, &ioc, "query");
    start(&ioc, TTLS_VERSION1, TTLS_ALLOW_HSTIMEOUT);
    call(sock, &ioc, "allow alone");
    start(&ioc, TTLS_VERSION1, TTLS_RESET_SESSION);
    call(sock, &ioc, "reset before init");

    /* version 2: a control request without a buffer */
    start(&ioc, TTLS_VERSION2, TTLS_INIT_CONNECTION);
    call(sock, &ioc, "init");
    call(sock, &ioc, "init again");

    /* version 1: the certificate, in a buffer that is too small, and again */
    start(&ioc, TTLS_VERSION1, TTLS_QUERY_ONLY | TTLS_RETURN_CERTIFICATE);
    ioc.TTLSi_BufferPtr = certificate;
    ioc.TTLSi_BufferLen = 10;
    call(sock, &ioc, "certificate into 10 bytes");
    ioc.TTLSi_BufferLen = sizeof(certificate);
    call(sock, &ioc, "certificate");
    printf("certificate of %u bytes begins with %02x %02x\n", ioc.TTLSi_Cert_Len, (unsigned char)certificate[0],
           (unsigned char)certificate[1]);
    printf("protocol %d.%d cipher %.2s %.4s key share %.4s type %d user length %d fips %d\n",
           ioc.TTLSi_SSL_Protocol.Prot_bytes.Prot_Ver, ioc.TTLSi_SSL_Protocol.Prot_bytes.Prot_Mod,
           ioc.TTLSi_Neg_Cipher, ioc.TTLSi_Neg_Cipher4, ioc.TTLSi_Neg_KeyShare, ioc.TTLSi_Sec_Type,
           ioc.TTLSi_UserID_Len, ioc.TTLSi_FIPS140 == TTLS_FIPS140_OFF);

    /* version 2: four of five quadruplets are counted */
    start(&ioc, TTLS_VERSION2, TTLS_QUERY_ONLY);
    memset(&buffer, 0, sizeof(buffer));
    memcpy(buffer.header.TTLSHeaderIdent, TTLSHeaderIdentifier, 8);
    buffer.header.TTLSHdr_SetCount = 0;
    buffer.header.TTLSHdr_GetCount = 4;
    buffer.quad[0].TTLSQ_Key = TTLSK_TTLSRuleName;
    buffer.quad[1].TTLSQ_Key = TTLSK_TTLSGroupActionName;
    buffer.quad[2].TTLSQ_Key = TTLSK_TTLSEnvironmentActionName;
    buffer.quad[3].TTLSQ_Key = TTLSK_TTLSConnectionActionName;
    ioc.TTLSi_BufferPtr = (char *)&buffer;
    ioc.TTLSi_BufferLen = sizeof(buffer);
    call(sock, &ioc, "names");
    item("rule", &buffer.quad[0]);
    item("group action", &buffer.quad[1]);
    item("environment action", &buffer.quad[2]);
    item("connection action", &buffer.quad[3]);

    /* version 2: the certificate as an item, in a buffer that is too small, and again */
    memset(&buffer, 0, sizeof(buffer));
    memcpy(buffer.header.TTLSHeaderIdent, TTLSHeaderIdentifier, 8);
    buffer.header.TTLSHdr_GetCount = 1;
    buffer.quad[0].TTLSQ_Key = TTLSK_Certificate;
    start(&ioc, TTLS_VERSION2, TTLS_QUERY_ONLY);
    ioc.TTLSi_BufferPtr = (char *)&buffer;
    ioc.TTLSi_BufferLen = sizeof(struct TTLSHeader) + sizeof(struct TTLSQuadruplet);
    call(sock, &ioc, "item into nothing");
    printf("fits then: %d\n", buffer.header.TTLSHdr_BytesNeeded >= ioc.TTLSi_Cert_Len + ioc.TTLSi_BufferLen);
    ioc.TTLSi_BufferLen = sizeof(buffer);
    call(sock, &ioc, "item");
    printf("the same certificate: %d\n",
           buffer.quad[0].TTLSQ_Length == ioc.TTLSi_Cert_Len &&
               memcmp((char *)&buffer + buffer.quad[0].TTLSQ_Offset, certificate, ioc.TTLSi_Cert_Len) == 0);

    start(&ioc, TTLS_VERSION1, TTLS_STOP_CONNECTION);
    call(sock, &ioc, "stop");
    call(sock, &ioc, "stop again");
    return 0;
}
