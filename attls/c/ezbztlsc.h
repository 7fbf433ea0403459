/* AT-TLS for programs: the structure and the values of the SIOCTTLSCTL ioctl.
 *
 * Names, and the values that IBM publishes, are those of z/OS's ezbztlsc.h; offsets, request bits and keys, which are
 * not published, are ours. Numbers are in the byte order of the machine, text is ASCII. A program written for z/OS
 * compiles with this header; how its ioctl reaches attls is its choice:
 *   - call attls_ioctl(fd, &ttls) from attls_ioctl.c;
 *   - compile with -DATTLS_REPLACE_IOCTL, and ioctl(fd, SIOCTTLSCTL, &ttls) becomes that call (others stay as they are);
 *   - run it under `attls exec`, where the real ioctl is answered.
 */
#ifndef ATTLS_EZBZTLSC_H
#define ATTLS_EZBZTLSC_H

#include <errno.h>
#include <stdint.h>
#include <sys/ioctl.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SIOCTTLSCTL 0xC038D90BU

/* TTLSi_Ver */
#define TTLS_VERSION1 1
#define TTLS_VERSION2 2

/* TTLSi_Req_Type: any of these, as far as they go together */
#define TTLS_QUERY_ONLY 0x0000
#define TTLS_RETURN_CERTIFICATE 0x0001
#define TTLS_INIT_CONNECTION 0x0002
#define TTLS_RESET_SESSION 0x0004
#define TTLS_RESET_CIPHER 0x0008
#define TTLS_ALLOW_HSTIMEOUT 0x0010
#define TTLS_STOP_CONNECTION 0x0020
#define TTLS_RESET_WRITE_CIPHER 0x0040
#define TTLS_SEND_SESSION_TICKET 0x0080

/* TTLSi_Stat_Policy */
#define TTLS_POL_OFF 1
#define TTLS_POL_NO_POLICY 2
#define TTLS_POL_NOT_ENABLED 3
#define TTLS_POL_ENABLED 4
#define TTLS_POL_APPLCNTRL 5

/* TTLSi_Stat_Conn */
#define TTLS_CONN_NOTSECURE 1
#define TTLS_CONN_HS_INPROGRESS 2
#define TTLS_CONN_SECURE 3

/* TTLSi_Sec_Type */
#define TTLS_SEC_UNKNOWN 0
#define TTLS_SEC_CLIENT 1
#define TTLS_SEC_SERVER 2
#define TTLS_SEC_SRV_CA_PASS 3
#define TTLS_SEC_SRV_CA_FULL 4
#define TTLS_SEC_SRV_CA_REQD 5
#define TTLS_SEC_SRV_CA_SAFCHK 6

/* TTLSi_SSL_Prot */
#define TTLS_PROT_UNKNOWN 0x0000
#define TTLS_PROT_SSLV2 0x0200
#define TTLS_PROT_SSLV3 0x0300
#define TTLS_PROT_TLSV1 0x0301
#define TTLS_PROT_TLSV1_1 0x0302
#define TTLS_PROT_TLSV1_2 0x0303
#define TTLS_PROT_TLSV1_3 0x0304

/* TTLSi_FIPS140 */
#define TTLS_FIPS140_OFF 0
#define TTLS_FIPS140_ON 1
#define TTLS_FIPS140_LEVEL1 2
#define TTLS_FIPS140_LEVEL2 3
#define TTLS_FIPS140_LEVEL3 4

/* TTLSi_Flags */
#define TTLS_FTPDATACONN 0x01
#define TTLS_WAIT 0x80 /* attls only: answer when there is an outcome, though the socket is non-blocking */

struct TTLS_IOCTL {
    uint16_t TTLSi_Ver;
    uint16_t TTLSi_Req_Type;
    uint8_t TTLSi_Stat_Policy;
    uint8_t TTLSi_Stat_Conn;
    union {
        uint16_t TTLSi_SSL_Prot;
        struct {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
            uint8_t Prot_Ver;
            uint8_t Prot_Mod;
#else
            uint8_t Prot_Mod;
            uint8_t Prot_Ver;
#endif
        } Prot_bytes;
    } TTLSi_SSL_Protocol;
    char TTLSi_Neg_Cipher[2];
    uint8_t TTLSi_Sec_Type;
    uint8_t TTLSi_UserID_Len;
    char TTLSi_UserID[9];
    uint8_t TTLSi_FIPS140;
    uint8_t TTLSi_Flags;
    uint8_t TTLSi_Rsvd1;
    union {
        void *TTLSi_Buffer;
        uint64_t TTLSi_BufferBits;
    } TTLSi_BufferUnion;
    uint32_t TTLSi_BufferLen;
    uint32_t TTLSi_Cert_Len;
    char TTLSi_Neg_Cipher4[4];
    char TTLSi_Neg_KeyShare[4];
    uint8_t TTLSi_Rsvd2[8];
};

#define TTLSi_SSL_Prot TTLSi_SSL_Protocol.TTLSi_SSL_Prot
#define TTLSi_Prot_Ver TTLSi_SSL_Protocol.Prot_bytes.Prot_Ver
#define TTLSi_Prot_Mod TTLSi_SSL_Protocol.Prot_bytes.Prot_Mod
#define TTLSi_BufferPtr TTLSi_BufferUnion.TTLSi_Buffer

typedef char attls_ioctl_structure_has_56_bytes[sizeof(struct TTLS_IOCTL) == 56 ? 1 : -1];

/* Version 2: the buffer begins with this; TTLSHdr_SetCount and then TTLSHdr_GetCount quadruplets follow. */
#define TTLSHeaderIdentifier "TTLSHDR "
#define TTLSHdr_Ident TTLSHeaderIdentifier

struct TTLSHeader {
    char TTLSHeaderIdent[8];
    uint8_t TTLSHdrRsvd1[8];
    uint32_t TTLSHdr_BytesNeeded;
    uint32_t TTLSHdr_SetCount;
    uint32_t TTLSHdr_GetCount;
    uint8_t TTLSHdrRsvd2[16];
};

typedef char attls_header_has_44_bytes[sizeof(struct TTLSHeader) == 44 ? 1 : -1];

/* Offsets count from the start of the header; 0 on return means that the item is not available. */
struct TTLSQuadruplet {
    uint32_t TTLSQ_Key;
    uint32_t TTLSQ_Offset;
    uint32_t TTLSQ_Length;
    uint32_t TTLSQ_Number;
};

#define TTLSK_TTLSRuleName 1
#define TTLSK_TTLSGroupActionName 2
#define TTLSK_TTLSEnvironmentActionName 3
#define TTLSK_TTLSConnectionActionName 4
#define TTLSK_Certificate 5
#define TTLSK_Host_Status 6
#define TTLSK_UserID 7 /* attls only: the user id whole, where TTLSi_UserID, of eight bytes, has no room for it */

/* What TTLSK_Host_Status returns, a 4-byte number: the policy gave no name, or the certificate carries it. */
#define TTLS_HOST_NOT_CHECKED 0
#define TTLS_HOST_MATCHED 1

/* errno-junior, as __errno2() returns it in its low half */
#define JROK 0
#define JRUnexpectedErr 0x0025
#define JRBuffTooSmall 0x006b
#define JRInvalidParms 0x00a9
#define JRSocketCallParmError 0x025e
#define JRInvalidVersion 0x03ed
#define JRAlreadyActive 0x0497
#define JRGetConnErr 0x7221
#define JRConnDeniedPolicy 0x7337
#define JRTtlsHandshakeFailed 0x733d
#define JRTtlsControlDataFailed 0x733e
#define JRTtlsResetSessionFailed 0x733f
#define JRTtlsResetCipherFailed 0x7340
#define JRTtlsClearTxtReceived 0x7343
#define JRTTLSStopReadDataPending 0x736c
#define JRTTLSStopWriteDataPending 0x736d
#define JRTtlsResetWriteCipherFailed 0x7370
#define JRTtlsSendSessionTicketFailed 0x7371

#ifndef EMVSERR
#define EMVSERR 157
#endif

/* Carry out what `request` asks for on the connection `fd`; returns 0, or -1 with errno. Thread-safe. */
int attls_ioctl(int fd, struct TTLS_IOCTL *request);

/* The errno-junior of this thread's last attls_ioctl. */
int attls_errno2(void);

/* ioctl, with SIOCTTLSCTL answered by attls_ioctl. */
int attls_any_ioctl(int fd, unsigned long command, ...);

#ifdef ATTLS_REPLACE_IOCTL
#define ioctl attls_any_ioctl
#define __errno2 attls_errno2
#endif

#ifdef __cplusplus
}
#endif

#endif
