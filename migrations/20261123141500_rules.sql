-- Rules over samples, and how far each host's samples were judged by them.

create table rules (
    rule_id           uuid primary key,
    name              text not null unique,
    severity          text not null check (severity in ('info', 'warning', 'critical')),
    enabled           boolean not null default true,
    selector          text not null default '',         -- labels, as written; empty: every host
    metric            text not null,                    -- such as host.cpu_ratio
    object            text,                             -- part of the mount point, device, interface or command line
    below             boolean not null default false,   -- the condition: below the threshold, not above it
    threshold         double precision not null,
    recover_threshold double precision not null,        -- on the good side of it the condition is gone
    for_s             integer not null check (for_s between 0 and 86400),
    recover_for_s     integer not null check (recover_for_s between 0 and 86400),
    built_in          boolean not null default false,
    created_at        timestamptz not null default now()
);

-- Up to which sample a host was judged. Samples that come later and are older are not judged.
create table rule_progress (
    host_id      uuid primary key references hosts on delete cascade,
    evaluated_to timestamptz not null,
    lost_reports bigint                                 -- what the agent had counted by then
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);

-- Objects whose condition holds, or held a moment ago. No row: all is well, or nothing is known.
create table rule_states (
    rule_id    uuid not null references rules on delete cascade,
    host_id    uuid not null references hosts on delete cascade,
    object     text not null,                           -- empty: the host itself
    began_at   timestamptz not null,                    -- first sample of the condition
    last_at    timestamptz not null,                    -- newest sample of the object
    firing     boolean not null,
    calm_since timestamptz,                             -- firing: since when samples lie on the good side
    primary key (host_id, rule_id, object)
) with (fillfactor = 70);
create index rule_states_rule on rule_states (rule_id);

alter table alerts add column rule_id uuid references rules on delete set null; -- null: of the sweep
create index alerts_rule_id on alerts (rule_id) where resolved_at is null and rule_id is not null;

-- What every fleet wants to know. Thresholds are such that a healthy fleet is quiet.
insert into rules (rule_id, name, severity, metric, below, threshold, recover_threshold, for_s, recover_for_s, built_in) values
    ('00000000-0000-7000-8000-000000000001', 'collector_stuck',      'warning',  'agent.failing_collectors',      false, 0,        0,        300, 60,  true),
    ('00000000-0000-7000-8000-000000000002', 'spool_growing',        'warning',  'agent.spool_reports',           false, 40,       10,       600, 0,   true),
    ('00000000-0000-7000-8000-000000000003', 'agent_lost_data',      'warning',  'agent.lost_reports',            false, 0,        0,        0,   600, true),
    ('00000000-0000-7000-8000-000000000004', 'filesystem_full',      'critical', 'filesystem.used_ratio',         false, 0.95,     0.93,     300, 60,  true),
    ('00000000-0000-7000-8000-000000000005', 'filesystem_no_inodes', 'critical', 'filesystem.inodes_used_ratio',  false, 0.95,     0.93,     300, 60,  true),
    ('00000000-0000-7000-8000-000000000007', 'filesystem_filling',   'warning',  'filesystem.full_in_hours',      true,  24,       36,       1800, 600, true),
    ('00000000-0000-7000-8000-000000000006', 'memory_exhausted',     'warning',  'host.memory_used_ratio',        false, 0.97,     0.95,     600, 120, true);
