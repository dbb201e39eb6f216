-- Who talked to whom, and how much: rows of connections[].

insert into series (series, chunk, retention) values
    ('connection_samples', interval '6 hours', interval '30 days');

call procfleet_create_series('connection_samples', $columns$
    sampled_at       timestamptz not null,
    instance_id      bigint,               -- null: no process holds the socket
    receive_bytes    bigint,
    transmit_bytes   bigint,
    retransmits      bigint,
    host_id          uuid        not null,
    interval_ms      integer     not null,
    connection_count integer     not null,
    local_port       integer     not null, -- 0: several
    remote_port      integer     not null, -- 0: several
    shared           boolean     not null,
    protocol         text        not null, -- tcp, udp
    direction        text,                 -- outbound, inbound
    scope            text,                 -- loopback, local, external
    local_address    inet        not null,
    remote_address   inet        not null
$columns$, interval '6 hours');

-- "Who talked to this address?" is asked of the whole fleet; the other direction begins with a host.
create index connection_samples_remote_address on connection_samples (remote_address, sampled_at desc);

alter table host_samples
    add column interface_receive_bytes  bigint,
    add column interface_transmit_bytes bigint,
    add column socket_receive_bytes     bigint,
    add column socket_transmit_bytes    bigint;
