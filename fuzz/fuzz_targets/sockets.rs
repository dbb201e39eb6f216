//! What netlink answers: messages, attributes, sockets of `sock_diag`, addresses of rtnetlink; and the links that
//! name a socket or a namespace.

#![no_main]

use agent::sockets::{addresses, diag, netlink, parse_link, parse_socket};
use libfuzzer_sys::fuzz_target;
use shared_model::TransportProtocol;

fuzz_target!(|bytes: &[u8]| {
    for message in netlink::messages(bytes) {
        for (_, value) in netlink::attributes(message.payload) {
            assert!(value.len() <= bytes.len());
        }
    }
    for protocol in [TransportProtocol::Tcp, TransportProtocol::Udp] {
        let _ = diag::parse(protocol, bytes);
    }
    let _ = addresses::parse(bytes);
    let _ = diag::counters(bytes, bytes.first().copied().unwrap_or(0));
    let _ = (parse_link(bytes), parse_socket(bytes));
});
