// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// Processes: one record per thread of the host at a tick (`tasks`), and events of those that begin
// another program (`executed`) or are gone (`freed`). Records begin with their length. The layouts are
// read by agent/src/bpf/records.rs.
//
// Totals of a process are those of its dead threads, which the kernel adds to `signal`, and of its live
// ones. At `sched_process_free` of the first thread all others are gone and everything they used is in
// `signal`, the tear-down of their memory included, which `sched_process_exit` comes too early for.
// What the kernel does not sum up, the run-queue delay, is summed in `endings` at each thread's exit.
//
// `sched_process_free` runs in whatever the kernel's deferred work interrupts, and there are contexts in which
// the kernel runs no program without counting that as a miss. So the last thread leaves what is known at its exit in
// `dead`, in its own context, and `freed` takes it away: what stays although the process is gone was missed.

#include "kernel.bpf.h"

char LICENSE[] SEC("license") = "GPL";

enum { LINE_BYTES = 4096, RING_BYTES = 1 << 20, WAKE_BYTES = 128 << 10, FD_WORDS = 64, CPUS = 32 };
enum { EVENT_EXEC = 1, EVENT_FREE = 2, EVENT_TOLD = 3 };
enum { RSS_FILE = 0, RSS_ANON = 1, RSS_SWAP = 2, RSS_SHMEM = 3 };
enum { HAS_IO = 1, RSS_EXACT = 2, RSS_KNOWN = 4, FDS_KNOWN = 8 };

struct counters {
	__u64 runtime_ns, user_ns, system_ns, run_delay_ns;
	__u64 switches_voluntary, switches_involuntary, faults_minor, faults_major;
	__u64 read_bytes, write_bytes, cancelled_write_bytes;
};

struct thread_record {
	__u32 size, tgid, pid, has;
	__u64 resident_pages, swap_pages;
	struct counters counters;
};

struct process_record {
	struct thread_record thread;
	__u64 start_ns, children_user_ns, children_system_ns;
	__u64 start_code, start_stack, cgroup;
	__u32 parent, user, state, flags, threads, descriptors;
	char comm[16];
};

struct exec_event {
	__u32 size, kind, pid, parent;
	__u64 start_ns, at_ns, cgroup;
	__u32 user, line_bytes;
	char comm[16];
	__u8 line[LINE_BYTES];
};

struct free_event {
	__u32 size, kind, pid, parent;
	__u64 start_ns, at_ns, cgroup;
	__u32 user, status, flags, has;
	char comm[16];
	__u64 peak_pages;
	struct counters counters;
};

struct life { __u64 start_ns, pid; };
struct ending { __u64 start_ns, run_delay_ns; };
// Grow only. `died` counts what was put into `dead`, `freed` what was taken from there.
struct losses { __u64 execs, exits, exit_runtime_ns, died, freed; };

struct { MAP_TYPE(type, MAP_RINGBUF); MAP_TYPE(max_entries, RING_BYTES); } events SEC(".maps");
struct {
	MAP_TYPE(type, MAP_PERCPU_ARRAY); MAP_TYPE(max_entries, 1);
	__u32 *key; struct exec_event *value;
} scratch SEC(".maps");
// What ended threads waited for, by process.
struct {
	MAP_TYPE(type, MAP_LRU_HASH); MAP_TYPE(max_entries, 8192);
	__u32 *key; struct ending *value;
} endings SEC(".maps");
// Processes whose last thread ended and that were not seen to be freed.
struct {
	MAP_TYPE(type, MAP_LRU_HASH); MAP_TYPE(max_entries, 8192);
	struct life *key; struct free_event *value;
} dead SEC(".maps");
struct { MAP_TYPE(type, MAP_ARRAY); MAP_TYPE(max_entries, 1); __u32 *key; struct losses *value; } losses SEC(".maps");
// Where each CPU's part of a per-CPU allocation lies.
struct { MAP_TYPE(type, MAP_PERCPU_ARRAY); MAP_TYPE(max_entries, 1); __u32 *key; __u64 *value; } probe SEC(".maps");
struct cpu_offsets { __u64 base, count, at[CPUS]; };
struct { MAP_TYPE(type, MAP_ARRAY); MAP_TYPE(max_entries, 1); __u32 *key; struct cpu_offsets *value; } offsets SEC(".maps");

const volatile __u32 cpu_count = 0;

INLINE __u64 cgroup_of(struct task_struct *task)
{
	struct css_set *set = task->cgroups;
	return set ? set->dfl_cgrp->kn->id : 0;
}

INLINE __u64 run_delay_of(struct task_struct *task)
{
	return FIELD_EXISTS(task->sched_info.run_delay) ? task->sched_info.run_delay : 0;
}

INLINE void count_thread(struct counters *to, struct task_struct *task)
{
	to->runtime_ns = task->se.sum_exec_runtime;
	to->user_ns = task->utime;
	to->system_ns = task->stime;
	to->run_delay_ns = run_delay_of(task);
	to->switches_voluntary = task->nvcsw;
	to->switches_involuntary = task->nivcsw;
	to->faults_minor = task->min_flt;
	to->faults_major = task->maj_flt;
	if (FIELD_EXISTS(task->ioac.read_bytes)) {
		to->read_bytes = task->ioac.read_bytes;
		to->write_bytes = task->ioac.write_bytes;
		to->cancelled_write_bytes = task->ioac.cancelled_write_bytes;
	}
}

// Adds what the threads that are gone used.
INLINE void add_gone(struct counters *to, struct signal_struct *signal)
{
	to->runtime_ns += signal->sum_sched_runtime;
	to->user_ns += signal->utime;
	to->system_ns += signal->stime;
	to->switches_voluntary += signal->nvcsw;
	to->switches_involuntary += signal->nivcsw;
	to->faults_minor += signal->min_flt;
	to->faults_major += signal->maj_flt;
	if (FIELD_EXISTS(signal->ioac.read_bytes)) {
		to->read_bytes += signal->ioac.read_bytes;
		to->write_bytes += signal->ioac.write_bytes;
		to->cancelled_write_bytes += signal->ioac.cancelled_write_bytes;
	}
}

// Finds out, once, how far each CPU's part of an allocation lies from its nominal address: a per-CPU map
// is one, its nominal address is in the map, and a helper gives the parts. Pointers become plain
// numbers by a detour through a map.
INLINE struct cpu_offsets *cpu_offsets(void)
{
	__u32 zero = 0;
	struct cpu_offsets *known = bpf_map_lookup_elem(&offsets, &zero);
	if (!known || known->count || !cpu_count || cpu_count > CPUS)
		return known;
	if (!ENUM_VALUE_EXISTS(enum bpf_func_id, BPF_FUNC_map_lookup_percpu_elem) || !FIELD_EXISTS(((struct bpf_array *)0)->pptrs))
		return known;
	*(void *volatile *)&known->base = &probe;
	__u64 map = *(volatile __u64 *)&known->base, nominal = 0;
	if (bpf_probe_read_kernel(&nominal, 8, (void *)(map + FIELD_OFFSET(((struct bpf_array *)0)->pptrs))) || !nominal)
		return known;
	__u32 cpu;
	for (cpu = 0; cpu < CPUS; cpu++) {
		if (cpu >= cpu_count)
			break;
		void *part = bpf_map_lookup_percpu_elem(&probe, &zero, cpu);
		if (!part)
			return known;
		*(void *volatile *)&known->base = part;
		known->at[cpu] = *(volatile __u64 *)&known->base - nominal;
	}
	known->count = cpu_count;
	return known;
}

INLINE __u64 parts_of(struct percpu_counter *counter)
{
	__u64 parts = 0;
	bpf_probe_read_kernel(&parts, sizeof(parts), &counter->counters);
	return parts;
}

// Adds each CPU's part of all four. Since Linux 6.6 the parts of one CPU lie side by side: one read does.
INLINE void add_parts(__s64 *sums, struct percpu_counter *all[4], struct cpu_offsets *offsets)
{
	__u64 at[4] = { parts_of(all[0]), 0, 0, parts_of(all[3]) };
	int together = at[3] == at[0] + 3 * sizeof(__s32);
	__u32 cpu;
	if (!together) {
		at[1] = parts_of(all[1]);
		at[2] = parts_of(all[2]);
	}
	for (cpu = 0; cpu < CPUS; cpu++) {
		__s32 parts[4] = {};
		if (cpu >= offsets->count)
			break;
		__u64 offset = offsets->at[cpu];
		if (together) {
			bpf_probe_read_kernel(parts, sizeof(parts), (void *)(at[0] + offset));
		} else {
			bpf_probe_read_kernel(&parts[0], sizeof(__s32), (void *)(at[0] + offset));
			bpf_probe_read_kernel(&parts[1], sizeof(__s32), (void *)(at[1] + offset));
			bpf_probe_read_kernel(&parts[2], sizeof(__s32), (void *)(at[2] + offset));
			bpf_probe_read_kernel(&parts[3], sizeof(__s32), (void *)(at[3] + offset));
		}
		sums[0] += parts[0];
		sums[1] += parts[1];
		sums[2] += parts[2];
		sums[3] += parts[3];
	}
}

INLINE __u64 pages(__s64 count)
{
	return count > 0 ? count : 0;
}

INLINE void read_memory(struct thread_record *to, struct mm_struct *mm)
{
	struct mm_struct___summed *summed = (void *)mm;
	struct mm_struct___percpu *percpu = (void *)mm;
	if (FIELD_EXISTS(summed->rss_stat.count)) {
		to->resident_pages = pages(summed->rss_stat.count[RSS_FILE].counter) +
			pages(summed->rss_stat.count[RSS_ANON].counter) + pages(summed->rss_stat.count[RSS_SHMEM].counter);
		to->swap_pages = pages(summed->rss_stat.count[RSS_SWAP].counter);
		to->has |= RSS_KNOWN | RSS_EXACT;
	} else if (FIELD_EXISTS(percpu->rss_stat[0].counters)) {
		struct cpu_offsets *offsets = cpu_offsets();
		if (!offsets)
			return;
		struct percpu_counter *all[4] = {
			&percpu->rss_stat[0], &percpu->rss_stat[1], &percpu->rss_stat[2], &percpu->rss_stat[3],
		};
		__s64 sums[4] = { all[0]->count, all[1]->count, all[2]->count, all[3]->count };
		if (offsets->count) {
			add_parts(sums, all, offsets);
			to->has |= RSS_EXACT;
		}
		to->resident_pages = pages(sums[RSS_FILE]) + pages(sums[RSS_ANON]) + pages(sums[RSS_SHMEM]);
		to->swap_pages = pages(sums[RSS_SWAP]);
		to->has |= RSS_KNOWN;
	}
}

// Open descriptors, where the table is small enough to be counted here.
INLINE void count_descriptors(struct process_record *to, struct task_struct *task)
{
	struct files_struct *files = task->files;
	if (!files)
		return;
	struct fdtable *table = files->fdt;
	__u64 bits = (__u64)table->open_fds;
	__u32 words = table->max_fds / 64, word, open = 0;
	if (words > FD_WORDS)
		return;
	for (word = 0; word < FD_WORDS; word++) {
		__u64 set = 0;
		if (word >= words)
			break;
		bpf_probe_read_kernel(&set, 8, (void *)(bits + word * 8));
		if (set)
			open += __builtin_popcountll(set);
	}
	to->descriptors = open;
	to->thread.has |= FDS_KNOWN;
}

INLINE void describe(struct process_record *to, struct task_struct *task)
{
	struct signal_struct *signal = task->signal;
	struct mm_struct *mm = task->mm;
	struct task_struct___long *before = (void *)task;
	__u32 pid = task->tgid;
	add_gone(&to->thread.counters, signal);
	struct ending *ending = bpf_map_lookup_elem(&endings, &pid);
	to->start_ns = task->start_boottime;
	if (ending && ending->start_ns == to->start_ns)
		to->thread.counters.run_delay_ns += ending->run_delay_ns;
	to->children_user_ns = signal->cutime;
	to->children_system_ns = signal->cstime;
	if (mm) {
		to->start_code = mm->start_code;
		to->start_stack = mm->start_stack;
	}
	to->cgroup = cgroup_of(task);
	to->parent = task->real_parent->tgid;
	to->user = task->real_cred->euid.val;
	to->state = (FIELD_EXISTS(task->__state) ? task->__state : before->state) | task->exit_state;
	to->flags = task->flags;
	to->threads = signal->nr_threads;
	count_descriptors(to, task);
	bpf_probe_read_kernel(to->comm, sizeof(to->comm), task->comm);
}

SEC("iter/task")
int tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct process_record record = {};
	struct thread_record *thread = &record.thread;
	if (!task)
		return 0;
	thread->tgid = task->tgid;
	thread->pid = task->pid;
	if (FIELD_EXISTS(task->ioac.read_bytes))
		thread->has |= HAS_IO;
	count_thread(&thread->counters, task);
	// The first thread may have ended before the others: then each of them says what memory they have.
	struct mm_struct *mm = task->mm;
	if (mm && (thread->pid == thread->tgid || !task->group_leader->mm))
		read_memory(thread, mm);
	if (thread->pid != thread->tgid) {
		thread->size = sizeof(*thread);
		bpf_seq_write(ctx->meta->seq, thread, sizeof(*thread));
		return 0;
	}
	thread->size = sizeof(record);
	describe(&record, task);
	bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
	return 0;
}

// Readers sleep until enough has gathered: they look anyway at every tick.
INLINE __u64 wake(void)
{
	return bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) >= WAKE_BYTES ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

SEC("tp_btf/sched_process_exec")
int executed(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	__u32 zero = 0;
	struct exec_event *event = bpf_map_lookup_elem(&scratch, &zero);
	struct losses *lost = bpf_map_lookup_elem(&losses, &zero);
	struct mm_struct *mm = task->mm;
	if (!event || !lost || !mm)
		return 0;
	__u64 begin = mm->arg_start, bytes = mm->arg_end - begin;
	if (bytes > LINE_BYTES)
		bytes = LINE_BYTES;
	if (bpf_probe_read_user(event->line, bytes, (void *)begin))
		bytes = 0;
	event->size = __builtin_offsetof(struct exec_event, line) + bytes;
	event->kind = EVENT_EXEC;
	event->pid = task->tgid;
	event->parent = task->real_parent->tgid;
	event->start_ns = task->start_boottime;
	event->at_ns = bpf_ktime_get_boot_ns();
	event->cgroup = cgroup_of(task);
	event->user = task->real_cred->euid.val;
	event->line_bytes = bytes;
	bpf_probe_read_kernel(event->comm, sizeof(event->comm), task->comm);
	if (bpf_ringbuf_output(&events, event, __builtin_offsetof(struct exec_event, line) + bytes, wake()))
		__sync_fetch_and_add(&lost->execs, 1);
	return 0;
}

// What a process is told by at its end, but for its counters.
INLINE void describe_end(struct free_event *event, struct task_struct *task)
{
	struct signal_struct *signal = task->signal;
	event->size = sizeof(*event);
	event->kind = EVENT_FREE;
	event->pid = task->tgid;
	event->parent = task->real_parent->tgid;
	event->start_ns = task->start_boottime;
	event->at_ns = bpf_ktime_get_boot_ns();
	event->cgroup = cgroup_of(task);
	event->user = task->real_cred->euid.val;
	event->status = signal->flags & SIGNAL_GROUP_EXIT ? signal->group_exit_code : task->exit_code;
	event->flags = task->flags;
	event->has = FIELD_EXISTS(task->ioac.read_bytes) ? HAS_IO : 0;
	bpf_probe_read_kernel(event->comm, sizeof(event->comm), task->comm);
	event->peak_pages = signal->maxrss;
}

SEC("tp_btf/sched_process_exit")
int exited(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0], *leader = task->group_leader;
	__u32 pid = task->tgid, zero = 0;
	// Start times of threads are their own: only the first thread's tells the process.
	__u64 start = leader->start_boottime, delay = run_delay_of(task);
	struct ending *known = bpf_map_lookup_elem(&endings, &pid);
	if (known && known->start_ns == start) {
		__sync_fetch_and_add(&known->run_delay_ns, delay);
		delay = known->run_delay_ns;
	} else {
		struct ending first = { start, delay };
		bpf_map_update_elem(&endings, &pid, &first, BPF_ANY);
	}
	if (task->signal->live.counter != 0)
		return 0;
	struct losses *lost = bpf_map_lookup_elem(&losses, &zero);
	struct life life = { start, pid };
	struct free_event event = {};
	count_thread(&event.counters, task);
	add_gone(&event.counters, task->signal);
	event.counters.run_delay_ns = delay;
	describe_end(&event, leader);
	// Two threads that end side by side may both see that no other lives.
	if (lost && !bpf_map_lookup_elem(&dead, &life))
		__sync_fetch_and_add(&lost->died, 1);
	bpf_map_update_elem(&dead, &life, &event, BPF_ANY);
	return 0;
}

SEC("tp_btf/sched_process_free")
int freed(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct signal_struct *signal = task->signal;
	__u32 pid = task->tgid, zero = 0;
	if (task->pid != task->tgid)
		return 0;
	struct losses *lost = bpf_map_lookup_elem(&losses, &zero);
	struct ending *ending = bpf_map_lookup_elem(&endings, &pid);
	__u64 start = task->start_boottime, died = 0, delay = 0;
	struct life life = { start, pid };
	struct free_event *end = bpf_map_lookup_elem(&dead, &life);
	if (ending && ending->start_ns == start) {
		delay = ending->run_delay_ns;
		bpf_map_delete_elem(&endings, &pid);
	}
	if (end) {
		__u32 kind = end->kind;
		died = end->at_ns;
		if (lost)
			__sync_fetch_and_add(&lost->freed, 1);
		bpf_map_delete_elem(&dead, &life);
		if (kind == EVENT_TOLD)
			return 0;
	}
	struct free_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		if (lost) {
			__sync_fetch_and_add(&lost->exits, 1);
			__sync_fetch_and_add(&lost->exit_runtime_ns, signal->sum_sched_runtime);
		}
		return 0;
	}
	__builtin_memset(event, 0, sizeof(*event));
	describe_end(event, task);
	add_gone(&event->counters, signal);
	event->counters.run_delay_ns = delay;
	if (died)
		event->at_ns = died;
	bpf_ringbuf_submit(event, wake());
	return 0;
}
