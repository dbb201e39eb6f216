//! What gives way when there is no room: acknowledged records, then detail of the past, then the past.

use std::time::Instant;

use shared_model::GapReason;

use super::format::SEGMENT_HEADER_BYTES;
use super::queue::{Body, Entry, Queue};
use super::segment;

/// Thinning keeps every how many-th report.
const THIN_KEEPS_EVERY: u64 = 6;
/// The spool may always use this much, however full the disk: less is not worth its files.
const MIN_BYTES: u64 = 1 << 20;

impl Queue {
    /// Bytes the spool may use now. An unknown free space does not restrict.
    fn allowed(&self) -> u64 {
        let Ok(disk) = rustix::fs::statvfs(&self.dir) else { return self.limits.max_bytes };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize).saturating_add(self.bytes());
        let share = free / 100 * u64::from(self.limits.max_free_percent);
        self.limits.max_bytes.min(share.max(MIN_BYTES))
    }

    /// Makes room on disk for `needed` bytes. False: everything that could give way did.
    pub(super) fn make_room(&mut self, needed: u64) -> bool {
        let needed = needed + SEGMENT_HEADER_BYTES as u64;
        let allowed = self.allowed();
        while self.bytes() + needed > allowed {
            let freed = self.drop_acknowledged() || self.thin() || self.drop_oldest();
            if !freed {
                // The segment being written is all there is: close it, so that it can give way too.
                if self.writer.take().is_none() {
                    return false;
                }
            }
        }
        true
    }

    /// Segments up to here are closed: one that is being written never gives way.
    fn closed(&self) -> usize {
        self.segments.len() - usize::from(self.writer.is_some())
    }

    /// Records that were sent keep their bytes until the server says what became of them.
    fn pinned(&self, index: usize) -> bool {
        self.offered > self.acknowledged && self.segments[index].first <= self.offered
    }

    /// Forgets acknowledged records that are too old or too many.
    pub(super) fn forget_acknowledged(&mut self, now: Instant) {
        let mut kept = 0;
        for segment in &mut self.segments {
            if segment.last <= self.acknowledged {
                segment.acknowledged_at.get_or_insert(now);
                kept += segment.bytes;
            }
        }
        while let Some(front) = self.segments.front() {
            let Some(since) = front.acknowledged_at else { break };
            let old = now.saturating_duration_since(since) >= self.limits.keep_for;
            let many = kept > self.limits.keep_bytes;
            kept -= front.bytes;
            if !(old || many) || !self.drop_acknowledged() {
                break;
            }
        }
        self.forget_memory();
    }

    /// Acknowledged reports in memory are not kept: should the server lose them, that is a gap.
    fn forget_memory(&mut self) {
        let mut index = self.head();
        while let Some(before) = index.checked_sub(1) {
            let entry = &mut self.entries[before];
            if entry.segment.is_some() {
                break;
            }
            if let Body::Memory { frame, .. } = &entry.body {
                self.memory_bytes -= frame.len();
                entry.body = Body::Gap(GapReason::ServerLostData);
            }
            let entry = entry.clone();
            if let Some(after) = self.entries.get_mut(index)
                && after.last <= self.acknowledged
                && after.segment.is_none()
                && joins(&entry, after)
            {
                after.first = entry.first;
                self.entries.remove(before);
            }
            index = before;
        }
        while self
            .entries
            .front()
            .is_some_and(|front| front.segment.is_none() && front.last <= self.acknowledged)
        {
            self.entries.pop_front();
        }
    }

    /// Removes the oldest segment if all of it is acknowledged.
    fn drop_acknowledged(&mut self) -> bool {
        let Some(front) = self.segments.front() else { return false };
        if front.last > self.acknowledged || self.closed() == 0 {
            return false;
        }
        let (id, last) = (front.first, front.last);
        segment::remove(&segment::path(&self.stream_dir(), id));
        self.segments.pop_front();
        let keep = self.entries.partition_point(|entry| entry.last <= last);
        self.entries.drain(..keep);
        true
    }

    /// Thins one segment of the older half of what is not acknowledged.
    fn thin(&mut self) -> bool {
        let oldest = self.segments.iter().find(|segment| !segment.gap_only);
        let oldest = oldest.map_or(0, |segment| segment.first).max(self.acknowledged);
        let middle = oldest + (self.next - oldest) / 2;
        let candidate = (0..self.closed()).find(|&index| {
            let segment = &self.segments[index];
            !segment.thinned && segment.last <= middle && !self.pinned(index)
        });
        let Some(index) = candidate else { return false };
        self.segments[index].thinned = true;
        let (from, to) = self.entries_of(index);
        let mut kept: Vec<Entry> = Vec::new();
        let mut reports = 0;
        let mut lost = 0;
        for entry in self.entries.range(from..to) {
            let report = !matches!(entry.body, Body::Gap(_));
            reports += u64::from(report);
            if report && reports % THIN_KEEPS_EVERY != 0 {
                lost += u64::from(entry.last > self.acknowledged);
                let gap = Entry::gap(entry.first, entry.last, GapReason::SpoolFull);
                merge(&mut kept, gap);
            } else {
                merge(&mut kept, entry.clone());
            }
        }
        if self.rewrite(index, kept) {
            self.count_loss(GapReason::SpoolFull, lost);
        }
        true
    }

    /// Makes one gap of the oldest segment that may give way.
    fn drop_oldest(&mut self) -> bool {
        let candidate =
            (0..self.closed()).find(|&index| !self.pinned(index) && !self.segments[index].gap_only);
        let Some(index) = candidate else { return false };
        let (from, to) = self.entries_of(index);
        let lost = self
            .entries
            .range(from..to)
            .filter(|entry| entry.last > self.acknowledged && !matches!(entry.body, Body::Gap(_)))
            .count();
        let (first, last) = (self.segments[index].first, self.segments[index].last);
        let gap = Entry::gap(first, last, GapReason::SpoolFull);
        if !self.rewrite(index, vec![gap.clone()]) {
            // Not even that can be written: unlinking still works, and the gap stays in memory.
            segment::remove(&segment::path(&self.stream_dir(), first));
            self.entries.drain(from..to);
            self.entries.insert(from, gap);
            self.segments.remove(index);
            self.count_loss(GapReason::SpoolFull, lost as u64);
            return true;
        }
        self.count_loss(GapReason::SpoolFull, lost as u64);
        self.segments[index].gap_only = true;
        if index > 0 && self.segments[index - 1].gap_only && !self.pinned(index - 1) {
            self.join_gaps(index - 1);
        }
        true
    }

    /// Joins two neighbouring segments that hold one gap each. A crash between the two steps leaves
    /// the second file, which the start finds covered by the first.
    fn join_gaps(&mut self, index: usize) {
        let (first, second) = (self.segments[index].first, self.segments[index + 1].first);
        let last = self.segments[index + 1].last;
        if self.segments[index].last + 1 != second {
            return;
        }
        let (_, to) = self.entries_of(index + 1);
        let gap = Entry::gap(first, last, GapReason::SpoolFull);
        let mut record = Vec::new();
        segment::push_record(&mut record, &gap.header(), &[]);
        let dir = self.stream_dir();
        if segment::replace(&dir, first, &record).is_err() {
            return;
        }
        segment::remove(&segment::path(&dir, second));
        let (from, _) = self.entries_of(index);
        self.entries.drain(from + 1..to);
        self.entries[from].last = last;
        self.segments[index].last = last;
        self.segments.remove(index + 1);
    }

    /// Range of the entries of a segment.
    fn entries_of(&self, index: usize) -> (usize, usize) {
        let segment = &self.segments[index];
        let from = self.entries.partition_point(|entry| entry.last < segment.first);
        let to = self.entries.partition_point(|entry| entry.first <= segment.last);
        (from, to)
    }

    /// Replaces a segment's content. False: it stays as it was.
    fn rewrite(&mut self, index: usize, mut kept: Vec<Entry>) -> bool {
        let id = self.segments[index].first;
        let dir = self.stream_dir();
        let path = segment::path(&dir, id);
        let mut records = Vec::new();
        for entry in &mut kept {
            let frame = match entry.body {
                Body::Stored { offset, bytes, .. } => {
                    match segment::read_frame(&path, offset, bytes) {
                        Ok(frame) => frame,
                        Err(_) => return false,
                    }
                }
                Body::Memory { .. } | Body::Gap(_) => Vec::new(),
            };
            segment::push_record(&mut records, &entry.header(), &frame);
            entry.segment = Some(id);
            if let Body::Stored { offset, .. } = &mut entry.body {
                *offset = (SEGMENT_HEADER_BYTES + records.len() - frame.len()) as u64;
            }
        }
        match segment::replace(&dir, id, &records) {
            Ok(bytes) => {
                let (from, to) = self.entries_of(index);
                let mut after = self.entries.split_off(to);
                self.entries.truncate(from);
                self.entries.extend(kept);
                self.entries.append(&mut after);
                self.segments[index].bytes = bytes;
                true
            }
            Err(error) => {
                tracing::warn!(%error, "cannot shorten a segment of the spool");
                false
            }
        }
    }

    /// Gives up the oldest reports in memory beyond the limit.
    pub(super) fn shrink_memory(&mut self) {
        let mut index = self.entries.partition_point(|entry| entry.last <= self.offered);
        while self.memory_bytes > self.limits.memory_bytes && index < self.entries.len() {
            if let Body::Memory { frame, .. } = &self.entries[index].body {
                self.memory_bytes -= frame.len();
                self.entries[index].body = Body::Gap(GapReason::SpoolUnwritable);
                self.count_loss(GapReason::SpoolUnwritable, 1);
                let entry = self.entries[index].clone();
                if let Some(before) = index.checked_sub(1)
                    && before >= self.entries.partition_point(|e| e.last <= self.offered)
                    && joins(&self.entries[before], &entry)
                    && self.entries[before].segment.is_none()
                {
                    self.entries[before].last = entry.last;
                    self.entries.remove(index);
                    continue;
                }
            }
            index += 1;
        }
    }
}

fn joins(before: &Entry, entry: &Entry) -> bool {
    match (&before.body, &entry.body) {
        (Body::Gap(one), Body::Gap(other)) => one == other && before.last + 1 == entry.first,
        _ => false,
    }
}

fn merge(kept: &mut Vec<Entry>, entry: Entry) {
    match kept.last_mut() {
        Some(before) if joins(before, &entry) => before.last = entry.last,
        _ => kept.push(entry),
    }
}
