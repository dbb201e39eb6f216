// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// Sockets: one record per TCP or UDP socket and process that holds it, at a tick (`files`), and one for each
// TCP connection that ended (`state_changed`). Both have the layout that agent/src/sockets/traced/record.rs reads.
// TCP counts its bytes itself; bytes of UDP are counted as they are sent and received (`sent`, `received`, Linux
// 6.3+), per socket and process, in `datagrams`.
//
// Who owns a connection is noted in the socket's own storage, in the process's context: when it connects, when
// it listens (a child inherits its listener's note), and when it sends or receives. The end of a connection is mostly
// told in some other context, often after the end of the process.

#include "kernel.bpf.h"

char LICENSE[] SEC("license") = "GPL";

enum { RING_BYTES = 1 << 20, WAKE_BYTES = 128 << 10, MAX_DATAGRAM_SOCKETS = 16384 };
enum { FAMILY_INET = 2, FAMILY_INET6 = 10, PROTOCOL_TCP = 6, PROTOCOL_UDP = 17 };
enum { ESTABLISHED = 1, SYN_SENT = 2, SYN_RECV = 3, CLOSE = 7, LISTEN = 10 };
enum { OUTBOUND = 1, INBOUND = 2 };
enum { SOCKET_DONE = 1 << 1, PEEK = 2, CLONE = 1 << 9, CREATE = 1 };

static long (*bpf_sk_storage_get)(void *map, void *sk, void *value, __u64 flags) = (void *)107;
static __u64 (*bpf_get_socket_cookie)(void *sk) = (void *)46;
static void *(*bpf_skc_to_tcp_sock)(void *sk) = (void *)137;
static void *(*bpf_get_current_task_btf)(void) = (void *)158;
static void *(*bpf_sock_from_file)(void *file) = (void *)162;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct in6_addr { union { __be32 u6_addr32[4]; } in6_u; };
struct ns_common { unsigned int inum; };
struct net { struct ns_common ns; };
typedef struct { struct net *net; } possible_net_t;
struct sock_common {
	__be32 skc_daddr, skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	unsigned long skc_flags;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr, skc_v6_rcv_saddr;
};
struct sock { struct sock_common __sk_common; __u16 sk_protocol; };
struct inet_sock { __be16 inet_sport; };
struct inet_connection_sock { struct inet_sock icsk_inet; };
struct tcp_sock { struct inet_connection_sock inet_conn; __u64 bytes_received, bytes_sent, bytes_retrans; __u32 total_retrans; };
struct socket { struct sock *sk; };
struct file;
#pragma clang attribute pop

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd __attribute__((aligned(8)));
	struct file *file;
};

struct note { __u64 start_ns; __u32 tgid; __u8 direction, listed, unused[2]; };

struct socket_record {
	__u32 size, tgid;
	__u64 start_ns, cookie;
	__u64 received, sent, retransmits;
	__u32 network, local[4], remote[4];
	__u16 local_port, remote_port;
	__u8 family, protocol, state, direction, listed, unused[3];
};

struct datagram_key { __u64 cookie; __u32 tgid, unused; };
struct losses { __u64 ends, datagrams, datagram_bytes; };

struct { MAP_TYPE(type, MAP_RINGBUF); MAP_TYPE(max_entries, RING_BYTES); } ends SEC(".maps");
struct {
	MAP_TYPE(type, MAP_SK_STORAGE); MAP_TYPE(map_flags, BPF_F_NO_PREALLOC | CLONE);
	int *key; struct note *value;
} notes SEC(".maps");
struct {
	MAP_TYPE(type, MAP_HASH); MAP_TYPE(max_entries, MAX_DATAGRAM_SOCKETS);
	struct datagram_key *key; struct socket_record *value;
} datagrams SEC(".maps");
struct { MAP_TYPE(type, MAP_ARRAY); MAP_TYPE(max_entries, 1); __u32 *key; struct losses *value; } socket_losses SEC(".maps");

INLINE void set_owner(struct note *note)
{
	struct task_struct *task = bpf_get_current_task_btf();
	note->tgid = task->tgid;
	note->start_ns = task->group_leader->start_boottime;
}

INLINE void copy_address(__u32 *to, struct in6_addr *from)
{
	to[0] = from->in6_u.u6_addr32[0];
	to[1] = from->in6_u.u6_addr32[1];
	to[2] = from->in6_u.u6_addr32[2];
	to[3] = from->in6_u.u6_addr32[3];
}

INLINE void describe(struct socket_record *record, struct sock *sk)
{
	record->size = sizeof(*record);
	record->cookie = bpf_get_socket_cookie(sk);
	record->network = sk->__sk_common.skc_net.net->ns.inum;
	record->family = sk->__sk_common.skc_family;
	record->protocol = sk->sk_protocol;
	record->state = sk->__sk_common.skc_state;
	record->local_port = sk->__sk_common.skc_num;
	record->remote_port = __builtin_bswap16(sk->__sk_common.skc_dport);
	if (record->family == FAMILY_INET6) {
		copy_address(record->local, &sk->__sk_common.skc_v6_rcv_saddr);
		copy_address(record->remote, &sk->__sk_common.skc_v6_daddr);
	} else {
		record->local[0] = sk->__sk_common.skc_rcv_saddr;
		record->remote[0] = sk->__sk_common.skc_daddr;
	}
}

// TCP's own counters. A FIN that has arrived is counted as a byte received.
INLINE void count_tcp(struct socket_record *record, struct sock *sk)
{
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return;
	__u64 received = tcp->bytes_received, sent = tcp->bytes_sent, again = tcp->bytes_retrans;
	if (received && (sk->__sk_common.skc_flags & SOCKET_DONE))
		received--;
	record->received = received;
	// At its end it has already given its port back.
	if (!record->local_port)
		record->local_port = __builtin_bswap16(tcp->inet_conn.icsk_inet.inet_sport);
	record->sent = sent > again ? sent - again : 0;
	record->retransmits = tcp->total_retrans;
}

INLINE int is_inet(struct sock *sk)
{
	__u16 family = sk->__sk_common.skc_family;
	return family == FAMILY_INET || family == FAMILY_INET6;
}

SEC("iter/task_file")
int files(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	if (!task || !file || task->tgid != task->pid)
		return 0;
	struct socket *socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;
	struct sock *sk = socket->sk;
	if (!sk || !is_inet(sk))
		return 0;
	__u16 protocol = sk->sk_protocol;
	if (protocol != PROTOCOL_TCP && protocol != PROTOCOL_UDP)
		return 0;
	struct socket_record record = {};
	describe(&record, sk);
	record.tgid = task->tgid;
	record.start_ns = task->group_leader->start_boottime;
	if (protocol == PROTOCOL_TCP) {
		if (record.state != LISTEN)
			count_tcp(&record, sk);
		struct note *note = (void *)bpf_sk_storage_get(&notes, sk, NULL, CREATE);
		if (note) {
			if (!note->tgid) {
				note->tgid = record.tgid;
				note->start_ns = record.start_ns;
			}
			note->listed = record.state != LISTEN;
			record.direction = note->direction;
		}
	}
	bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
	return 0;
}

INLINE struct losses *losses(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&socket_losses, &zero);
}

INLINE void tell_end(struct sock *sk, struct note *note)
{
	struct socket_record *record = bpf_ringbuf_reserve(&ends, sizeof(*record), 0);
	if (!record) {
		struct losses *lost = losses();
		if (lost)
			__sync_fetch_and_add(&lost->ends, 1);
		return;
	}
	__builtin_memset(record, 0, sizeof(*record));
	describe(record, sk);
	count_tcp(record, sk);
	if (note) {
		record->tgid = note->tgid;
		record->start_ns = note->start_ns;
		record->direction = note->direction;
		record->listed = note->listed;
	}
	int wake = bpf_ringbuf_query(&ends, BPF_RB_AVAIL_DATA) >= WAKE_BYTES;
	bpf_ringbuf_submit(record, wake ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
}

SEC("tp_btf/inet_sock_set_state")
int state_changed(__u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	int before = (int)ctx[1], now = (int)ctx[2];
	if (sk->sk_protocol != PROTOCOL_TCP)
		return 0;
	struct note *note;
	if (now == SYN_SENT || now == LISTEN) {
		note = (void *)bpf_sk_storage_get(&notes, sk, NULL, CREATE);
		if (note) {
			set_owner(note);
			note->direction = now == SYN_SENT ? OUTBOUND : INBOUND;
			note->listed = 0;
		}
	} else if (now == ESTABLISHED && before == SYN_RECV) {
		note = (void *)bpf_sk_storage_get(&notes, sk, NULL, 0);
		if (note) {
			note->direction = INBOUND;
			note->listed = 0;
		}
	} else if (now == CLOSE && before != LISTEN && before != CLOSE) {
		note = (void *)bpf_sk_storage_get(&notes, sk, NULL, 0);
		tell_end(sk, note);
	}
	return 0;
}

INLINE void count_datagram(struct sock *sk, __u64 received, __u64 sent)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct datagram_key key = { .cookie = bpf_get_socket_cookie(sk), .tgid = task->tgid };
	struct socket_record *known = bpf_map_lookup_elem(&datagrams, &key);
	if (!known) {
		struct socket_record record = {};
		describe(&record, sk);
		record.tgid = task->tgid;
		record.start_ns = task->group_leader->start_boottime;
		bpf_map_update_elem(&datagrams, &key, &record, BPF_NOEXIST);
		known = bpf_map_lookup_elem(&datagrams, &key);
	}
	if (known) {
		__sync_fetch_and_add(&known->received, received);
		__sync_fetch_and_add(&known->sent, sent);
		return;
	}
	struct losses *lost = losses();
	if (lost) {
		__sync_fetch_and_add(&lost->datagrams, 1);
		__sync_fetch_and_add(&lost->datagram_bytes, received + sent);
	}
}

INLINE void moved(struct sock *sk, __u64 received, __u64 sent)
{
	if (!is_inet(sk))
		return;
	__u16 protocol = sk->sk_protocol;
	if (protocol == PROTOCOL_UDP) {
		count_datagram(sk, received, sent);
	} else if (protocol == PROTOCOL_TCP) {
		// Whoever moved its bytes last owns a connection that no tick saw.
		struct note *note = (void *)bpf_sk_storage_get(&notes, sk, NULL, CREATE);
		__u32 tgid = bpf_get_current_pid_tgid() >> 32;
		if (note && note->tgid != tgid)
			set_owner(note);
	}
}

SEC("tp_btf/sock_send_length")
int sent(__u64 *ctx)
{
	int bytes = (int)ctx[1];
	if (bytes > 0)
		moved((void *)ctx[0], 0, bytes);
	return 0;
}

SEC("tp_btf/sock_recv_length")
int received(__u64 *ctx)
{
	int bytes = (int)ctx[1], flags = (int)ctx[2];
	if (bytes > 0 && !(flags & PEEK))
		moved((void *)ctx[0], bytes, 0);
	return 0;
}
