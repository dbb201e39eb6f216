//! Sockets that several processes hold, that are passed on, and a great many of them.

use std::sync::Arc;

use agent::bpf::{Bpf, OBJECTS};
use agent::procfs::Root;
use agent::sockets::{Options, Process, Sockets};
use shared_model::InstanceId;

use super::host::{Host, TIERS, connections_of, traffic_of};
use super::peer::{
    MOST_CONNECTIONS, Peer, SPARE_DESCRIPTORS, instance_of, raise_descriptors, transfer,
};
use crate::support::TestDir;

/// A server that forked its workers: all of them accept from one listening socket.
#[test]
fn eight_workers_on_one_listening_socket() {
    for tier in TIERS {
        let directory = TestDir::new();
        let path = directory.0.join("listener");
        let path = path.to_str().unwrap();
        let mut first = Peer::start();
        let service = first.ask("listen 127.0.0.1:0");
        let mut workers: Vec<Peer> = (0..8).map(|_| Peer::start()).collect();
        for worker in &mut workers {
            worker.tell(&format!("take-listener {path}"));
            first.ask(&format!("give-listener {path}"));
            worker.answer();
        }
        let mut client = Peer::start();
        let mut host = Host::start(tier);
        for (at, worker) in workers.iter_mut().enumerate() {
            client.ask(&format!("connect {service}"));
            worker.ask("accept");
            transfer(&mut client, worker, 1000 * (at + 1));
        }
        let report = host.tick();
        let of_workers: Vec<_> =
            workers.iter().map(|worker| traffic_of(&report, worker.instance_id)).collect();
        let truth: Vec<_> = (1..=8).map(|at| (Some(1000 * at), Some(0))).collect();
        assert_eq!(of_workers, truth, "{tier:?}");
        for worker in &workers {
            let rows = connections_of(&report, worker.instance_id);
            assert!(rows.len() == 1 && !rows[0].shared, "{rows:?}");
        }
        assert_eq!(traffic_of(&report, client.instance_id), (Some(0), Some(36_000)));
        // The client's eight connections to one service are one row.
        let rows = connections_of(&report, client.instance_id);
        assert_eq!((rows.len(), rows[0].connection_count, rows[0].local_port), (1, 8, 0));
    }
}

#[test]
fn a_connection_passed_to_another_process() {
    for tier in TIERS {
        let directory = TestDir::new();
        let path = directory.0.join("stream");
        let path = path.to_str().unwrap();
        let (mut one, mut other, mut client) = (Peer::start(), Peer::start(), Peer::start());
        let mut host = Host::start(tier);
        let service = one.ask("listen 127.0.0.1:0");
        client.ask(&format!("connect {service}"));
        one.ask("accept");
        transfer(&mut client, &mut one, 1000);
        let report = host.tick();
        assert_eq!(traffic_of(&report, one.instance_id).0, Some(1000));

        other.tell(&format!("take-stream {path}"));
        one.ask(&format!("give-stream {path}"));
        other.answer();
        one.ask("close");
        transfer(&mut client, &mut other, 2000);
        let report = host.tick();
        let found =
            (traffic_of(&report, one.instance_id).0, traffic_of(&report, other.instance_id).0);
        assert_eq!(found, (Some(0), Some(2000)), "{tier:?}");
    }
}

/// The rule: once, for the lowest process id, marked.
#[test]
fn a_connection_that_two_hold_is_counted_once() {
    for tier in TIERS {
        let directory = TestDir::new();
        let path = directory.0.join("stream");
        let path = path.to_str().unwrap();
        let (mut one, mut client) = (Peer::start(), Peer::start());
        let service = one.ask("listen 127.0.0.1:0");
        client.ask(&format!("connect {service}"));
        one.ask("accept");
        let mut host = Host::start(tier);
        let mut other = Peer::start();
        other.tell(&format!("take-stream {path}"));
        one.ask(&format!("give-stream {path}"));
        other.answer();
        transfer(&mut client, &mut other, 2000);
        let report = host.tick();
        let (lowest, highest) =
            if one.pid() < other.pid() { (&one, &other) } else { (&other, &one) };
        let found =
            (traffic_of(&report, lowest.instance_id).0, traffic_of(&report, highest.instance_id).0);
        assert_eq!(found, (Some(2000), Some(0)), "{tier:?}");
        assert!(connections_of(&report, lowest.instance_id)[0].shared);
    }
}

/// The same rule for a socket that a child inherits: the parent's while it holds it, then the child's.
#[test]
fn a_connection_that_a_child_inherits() {
    for tier in TIERS {
        let (mut parent, mut client) = (Peer::start(), Peer::start());
        let service = parent.ask("listen 127.0.0.1:0");
        client.ask(&format!("connect {service}"));
        parent.ask("accept");
        let mut host = Host::start(tier);
        let child = parent.ask("share-with-child").parse::<u32>().unwrap();
        let of_child = instance_of(child);
        client.ask("send 2000");
        let report = host.tick();
        let is_child_lower = child < parent.pid();
        let received = |instance| traffic_of(&report, instance).0;
        let found = (received(parent.instance_id), received(of_child));
        let expected = if is_child_lower { (0, 2000) } else { (2000, 0) };
        assert_eq!(found, (Some(expected.0), Some(expected.1)), "{tier:?}");
        let owner = if is_child_lower { of_child } else { parent.instance_id };
        let rows = connections_of(&report, owner);
        assert!(rows.len() == 1 && rows[0].shared, "{rows:?}");

        parent.ask("close");
        client.ask("send 3000");
        let report = host.tick();
        let received = |instance| traffic_of(&report, instance).0;
        let found = (received(parent.instance_id), received(of_child));
        assert_eq!(found, (Some(0), Some(3000)), "{tier:?}");
        assert!(!connections_of(&report, of_child)[0].shared);
    }
}

/// Resident set of this process, bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Both ends of 25,000 connections, in as many pairs of processes as the limit of open files makes necessary.
#[test]
fn fifty_thousand_sockets() {
    let limit = raise_descriptors(MOST_CONNECTIONS + SPARE_DESCRIPTORS);
    let each = (limit - SPARE_DESCRIPTORS).min(MOST_CONNECTIONS);
    let count = 25_000_u64.div_ceil(each);
    let mut pairs: Vec<(Peer, Peer)> = (0..count).map(|_| (Peer::start(), Peer::start())).collect();
    for (server, client) in &mut pairs {
        let service = server.ask("listen 127.0.0.1:0");
        client.tell(&format!("connect-many {service} {each}"));
        server.ask(&format!("accept-many {each}"));
        client.answer();
    }
    for tier in TIERS {
        let before = resident();
        let mut host = Host::start(tier);
        for (server, client) in &mut pairs {
            client.ask("send-on-each 100");
            server.ask("receive-on-each 100");
        }
        let report = host.tick();
        let grown = resident().saturating_sub(before);
        assert!(grown < 64 << 20, "{grown} bytes for {} sockets, {tier:?}", each * 4);
        let check = |instance: InstanceId, bytes| {
            let rows = connections_of(&report, instance);
            assert_eq!(rows.len(), 1, "{tier:?}");
            assert_eq!(u64::from(rows[0].connection_count), each);
            assert_eq!(traffic_of(&report, instance), bytes, "{tier:?}");
        };
        for (server, client) in &pairs {
            check(server.instance_id, (Some(each * 100), Some(0)));
            check(client.instance_id, (Some(0), Some(each * 100)));
        }
    }
}

/// Or as many as the machine lets one process have: more than its hard limit needs `CAP_SYS_RESOURCE`.
#[test]
fn one_process_with_200_000_open_files() {
    let (mut server, mut client) = (Peer::start(), Peer::start());
    let count = server.ask("open-files 200000").parse::<u64>().unwrap();
    if count < 200_000 {
        println!("this machine lets one process have no more than {count} open files");
    }
    for tier in TIERS {
        let mut host = Host::start(tier);
        let service = server.ask("listen 127.0.0.1:0");
        client.ask(&format!("connect {service}"));
        server.ask("accept");
        transfer(&mut client, &mut server, 4321);
        let report = host.tick();
        assert_eq!(traffic_of(&report, server.instance_id), (Some(4321), Some(0)), "{tier:?}");
        let row = report.processes.iter().find(|row| row.instance_id == server.instance_id);
        let descriptors = row.unwrap().file_descriptor_count;
        assert!(descriptors.is_some_and(|number| u64::from(number) > count), "{descriptors:?}");
    }
}

#[test]
fn who_serves_which_port() {
    let directory = TestDir::new();
    let path = directory.0.join("listener");
    let path = path.to_str().unwrap();
    let (mut one, mut other) = (Peer::start(), Peer::start());
    let service = one.ask("listen 127.0.0.1:0");
    let port = service.rsplit(':').next().unwrap().parse().unwrap();
    other.tell(&format!("take-listener {path}"));
    one.ask(&format!("give-listener {path}"));
    other.answer();
    one.ask("udp-bind 127.7.7.7:2053");
    other.ask("udp-bind 127.7.7.7:0");
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let boot_id = uuid::Uuid::parse_str(boot_id.trim()).unwrap();
    let processes =
        [&one, &other].map(|peer| Process { pid: peer.pid(), instance_id: peer.instance_id });
    for bpf in [Bpf::load(OBJECTS), Bpf::none(OBJECTS, "not asked for")] {
        let mut sockets = Sockets::new(&Root::system(), &Arc::new(bpf), boot_id);
        let network = sockets.read(&processes, &Options::default());
        assert_eq!(network.listening.get(&one.pid()), Some(&vec![2053, port]));
        assert_eq!(network.listening.get(&other.pid()), Some(&vec![port]));
        assert_eq!(network.by_instance, None, "the first reading knows no deltas");
    }
}
