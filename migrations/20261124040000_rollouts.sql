-- Which release of the agent each host runs, which one it should run, and how a release gets to the fleet.

-- What each host last said of its agent's release, and what it is told. Written when it changes.
create table host_releases (
    host_id       uuid primary key references hosts on delete cascade,
    installed_seq bigint,                           -- the release that runs; null: it was installed without one
    state         text check (state in ('idle', 'off', 'requested', 'downloading', 'staged', 'probation',
        'confirmed', 'rolled_back', 'failed')),     -- null: its agent does not update itself
    target_seq    bigint,                           -- the release tried last, or being tried
    reason        text,                             -- why it was rolled back or failed
    changed_at    timestamptz,                      -- when any of these changed, database clock
    pinned_seq    bigint,                           -- what an operator wants on this host, whatever is rolled out
    desired_seq   bigint                            -- what it is told to run; null: it stays what it is
);
-- What servers ask for every few seconds: whoever is to become another.
create index host_releases_wanted on host_releases (host_id)
    where desired_seq is distinct from installed_seq and desired_seq is not null;

create table rollouts (
    rollout_id          uuid primary key,
    created_at          timestamptz not null default now(),
    created_by          text not null,
    target_seq          bigint not null check (target_seq > 0),
    state               text not null default 'canary'
        check (state in ('canary', 'rolling', 'paused', 'halted', 'done', 'cancelled')),
    percent             smallint not null default 0 check (percent in (0, 1, 10, 50, 100)), -- of the fleet; 0: canaries alone
    canary_count        integer not null default 5 check (canary_count between 1 and 100),
    canary_selector     text,                       -- labels, as written; null: any host
    canary_requirements jsonb not null default '[]', -- the selector as procfleet_selects reads it
    max_in_flight       integer not null default 100 check (max_in_flight > 0),
    soak                interval not null default '30 minutes' check (soak >= '0'),
    advance             boolean not null default false, -- an operator does not want to wait for the end of this step's soak
    step_entered_at     timestamptz not null default now(), -- or when it ended
    reason              text,                       -- why it was halted, or what it waits for
    worked_at           timestamptz not null default '-infinity' -- when a server last looked
);
-- One at a time.
create unique index rollouts_one_open on rollouts ((true)) where state in ('canary', 'rolling', 'paused');
create index rollouts_created_at on rollouts (created_at);

-- Hosts that were started.
create table rollout_hosts (
    rollout_id uuid not null references rollouts on delete cascade,
    host_id    uuid not null references hosts on delete cascade,
    is_canary  boolean not null,
    started_at timestamptz not null default now(),
    outcome    text check (outcome in ('confirmed', 'rolled_back', 'failed', 'lost')), -- null: under way
    settled_at timestamptz,
    reason     text,
    primary key (rollout_id, host_id)
);
create index rollout_hosts_host_id on rollout_hosts (host_id);
