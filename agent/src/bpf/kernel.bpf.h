// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// What our programs need of the kernel: only the fields that are read. Every access is relocated to
// where the running kernel has the field (CO-RE), so order and gaps here mean nothing. A name with
// ___suffix is another shape of the same type. Add what you read, nothing else.

#ifndef PROCFLEET_KERNEL_H
#define PROCFLEET_KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define NULL ((void *)0)

// Maps, as BTF describes them.
#define MAP_TYPE(name, value) int (*name)[value]
enum { MAP_HASH = 1, MAP_ARRAY = 2, MAP_PERCPU_ARRAY = 6, MAP_LRU_HASH = 9, MAP_SK_STORAGE = 24, MAP_RINGBUF = 27 };
enum { BPF_ANY = 0, BPF_NOEXIST = 1, BPF_F_NO_PREALLOC = 1 };
enum { BPF_RB_NO_WAKEUP = 1, BPF_RB_FORCE_WAKEUP = 2, BPF_RB_AVAIL_DATA = 0 };

// Helpers, by their numbers in include/uapi/linux/bpf.h.
static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static __u32 (*bpf_get_smp_processor_id)(void) = (void *)8;
static __u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;
static long (*bpf_probe_read_user)(void *to, __u32 size, const void *from) = (void *)112;
static long (*bpf_probe_read_kernel)(void *to, __u32 size, const void *from) = (void *)113;
static __u64 (*bpf_ktime_get_boot_ns)(void) = (void *)125;
static long (*bpf_seq_write)(void *seq, const void *data, __u32 size) = (void *)127;
static long (*bpf_ringbuf_output)(void *ring, void *data, __u64 size, __u64 flags) = (void *)130;
static void *(*bpf_ringbuf_reserve)(void *ring, __u64 size, __u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *data, __u64 flags) = (void *)132;
static __u64 (*bpf_ringbuf_query)(void *ring, __u64 flags) = (void *)134;
static void *(*bpf_map_lookup_percpu_elem)(void *map, const void *key, __u32 cpu) = (void *)195;

// Questions about the running kernel, answered when the program is loaded.
#define FIELD_EXISTS(field) __builtin_preserve_field_info(field, 2)
#define FIELD_OFFSET(field) __builtin_preserve_field_info(field, 0)
#define ENUM_VALUE_EXISTS(type, value) __builtin_preserve_enum_value(*(typeof(type) *)value, 0)

enum bpf_func_id { BPF_FUNC_map_lookup_percpu_elem = 195 };

enum { PF_KTHREAD = 0x00200000, SIGNAL_GROUP_EXIT = 0x4 };

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct { int counter; } atomic_t;
typedef struct { long counter; } atomic_long_t;

struct kernfs_node { __u64 id; };
struct cgroup { struct kernfs_node *kn; };
struct css_set { struct cgroup *dfl_cgrp; };
typedef struct { unsigned int val; } kuid_t;
struct cred { kuid_t euid; };
struct sched_entity { __u64 sum_exec_runtime; };
struct sched_info { unsigned long long run_delay; };
struct task_io_accounting { __u64 read_bytes; __u64 write_bytes; __u64 cancelled_write_bytes; };
struct fdtable { unsigned int max_fds; unsigned long *open_fds; };
struct files_struct { struct fdtable *fdt; };

struct percpu_counter { __s64 count; __s32 *counters; };
struct mm_struct { unsigned long start_code, start_stack, arg_start, arg_end; };
// Until 6.1: sums of all threads' shares. From 6.2: a counter per CPU, `count` lags behind.
struct mm_rss_stat { atomic_long_t count[4]; };
struct mm_struct___summed { struct mm_rss_stat rss_stat; };
struct mm_struct___percpu { struct percpu_counter rss_stat[4]; };

struct signal_struct {
	atomic_t live;
	int nr_threads;
	int group_exit_code;
	unsigned int flags;
	__u64 utime, stime, cutime, cstime;
	unsigned long nvcsw, nivcsw, min_flt, maj_flt, maxrss;
	struct task_io_accounting ioac;
	unsigned long long sum_sched_runtime;
};

struct task_struct {
	unsigned int __state;
	unsigned int flags;
	int exit_state;
	int exit_code;
	int pid;
	int tgid;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct mm_struct *mm;
	struct files_struct *files;
	struct signal_struct *signal;
	const struct cred *real_cred;
	struct css_set *cgroups;
	struct sched_entity se;
	struct sched_info sched_info;
	struct task_io_accounting ioac;
	__u64 utime, stime, start_boottime;
	unsigned long nvcsw, nivcsw, min_flt, maj_flt;
	char comm[16];
};
// Until 5.13.
struct task_struct___long { long state; };

struct bpf_map;
struct bpf_array { void *pptrs[1]; };

#pragma clang attribute pop

// Iterators' arguments: fixed by the kernel's interface.
struct seq_file;
struct bpf_iter_meta { struct seq_file *seq; __u64 session_id; __u64 seq_num; };
struct bpf_iter__task { struct bpf_iter_meta *meta; struct task_struct *task; };

#endif
