-- Hosts whose data operators want gone. One row per host: done once, it stays as the tombstone's end.
create table host_purges (
    host_id      uuid primary key references hosts on delete cascade,
    state        text not null default 'queued' check (state in ('queued', 'running', 'done')),
    requested_at timestamptz not null default now(),
    started_at   timestamptz,
    finished_at  timestamptz,
    steps_done   integer not null default 0,        -- tables that hold nothing of the host any more
    steps_total  integer not null,
    rows_removed bigint not null default 0
);
create index host_purges_open on host_purges (requested_at) where state <> 'done';
