//! What netlink answers: messages, attributes, sockets of `sock_diag`, addresses of rtnetlink.

#![no_main]

use agent::sockets::{addresses, diag, netlink};
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
});
