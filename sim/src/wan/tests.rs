//! The emulated network over real UDP sockets on loopback: order and limits, and that nothing is early. How late
//! something may be is the machine's affair and not tested.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::udp::Transmit;
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime};
use tokio::net::UdpSocket;

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

fn plain_socket(bind: &str) -> Arc<dyn AsyncUdpSocket> {
    TokioRuntime.wrap_udp_socket(std::net::UdpSocket::bind(bind).unwrap()).unwrap()
}

fn send(socket: &Arc<dyn AsyncUdpSocket>, to: SocketAddr, contents: &[u8], segment_size: Option<usize>) {
    socket.try_send(&Transmit { destination: to, ecn: None, contents, segment_size, src_ip: None }).unwrap();
}

async fn receive(socket: &UdpSocket) -> (Vec<u8>, Instant) {
    let mut buffer = vec![0; 65_536];
    let received = tokio::time::timeout(DEADLINE, socket.recv(&mut buffer)).await;
    let length = received.expect("a datagram arrives").unwrap();
    buffer.truncate(length);
    (buffer, Instant::now())
}

/// Waits until these are the counters: a datagram is counted after it has been given to its socket, maybe later than it is
/// received.
async fn counts(wan: &Wan, expected: Counters) {
    let until = Instant::now() + DEADLINE;
    while wan.counters() != expected {
        assert!(Instant::now() < until, "{:?} instead of {expected:?}", wan.counters());
        tokio::task::yield_now().await;
    }
}

async fn reader() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test]
async fn datagrams_arrive_in_order_and_never_early() {
    const DELAY: Duration = Duration::from_millis(40);
    let wan = Wan::new().unwrap();
    let socket = wan.socket_by_address(|_| DELAY)(plain_socket("127.0.0.1:0"));
    let (reader, address) = reader().await;
    let mut sent = Vec::new();
    for number in 0..200_u32 {
        sent.push(Instant::now());
        send(&socket, address, &number.to_be_bytes(), None);
    }
    for (number, sent) in (0..).zip(sent) {
        let (content, arrived) = receive(&reader).await;
        assert_eq!(content, u32::to_be_bytes(number));
        assert!(arrived - sent >= DELAY, "number {number} took only {:?}", arrived - sent);
    }
    counts(&wan, Counters { delivered: 200, ..Counters::default() }).await;
}

#[tokio::test]
async fn a_short_way_is_not_held_up_by_a_long_one() {
    let (near, near_address) = reader().await;
    let (far, far_address) = reader().await;
    let wan = Wan::new().unwrap();
    let delay = move |to| Duration::from_millis(if to == far_address { 300 } else { 5 });
    let socket = wan.socket_by_address(delay)(plain_socket("127.0.0.1:0"));
    send(&socket, far_address, b"far", None);
    send(&socket, near_address, b"near", None);
    let (_, near_arrived) = receive(&near).await;
    let (_, far_arrived) = receive(&far).await;
    assert!(near_arrived < far_arrived);
}

#[tokio::test]
async fn regions_have_the_delay_between_them_and_strangers_none() {
    let wan = Wan::with(LINK_BYTES, |from, to| match (from, to) {
        ("fra", "syd") => Duration::from_millis(120),
        _ => Duration::from_millis(60),
    })
    .unwrap();
    let fra = wan.socket("fra")(plain_socket("127.0.0.1:0"));
    let syd = wan.socket("syd")(plain_socket("127.0.0.1:0"));
    // Bound to every address, reached by one of them.
    let iad = wan.socket("iad")(plain_socket("0.0.0.0:0"));
    let delay = |to: SocketAddr| wan.places.delay("fra", to);
    assert_eq!(delay(syd.local_addr().unwrap()), Duration::from_millis(120));
    let iad_address = SocketAddr::from(([127, 0, 0, 1], iad.local_addr().unwrap().port()));
    assert_eq!(delay(iad_address), Duration::from_millis(60));
    let mapped: SocketAddr =
        format!("[::ffff:127.0.0.1]:{}", syd.local_addr().unwrap().port()).parse().unwrap();
    assert_eq!(delay(mapped), Duration::from_millis(120));
    let gone = syd.local_addr().unwrap();
    drop(syd);
    assert_eq!(delay(gone), Duration::ZERO);
    // Undelayed datagrams take the direct way, which the counters do not see.
    let (stranger, address) = reader().await;
    let poller = &mut fra.clone().create_io_poller();
    std::future::poll_fn(|context| poller.as_mut().poll_writable(context)).await.unwrap();
    send(&fra, address, b"direct", None);
    assert_eq!(receive(&stranger).await.0, b"direct");
    assert_eq!(wan.counters().delivered, 0);
}

#[tokio::test]
async fn a_full_link_drops_what_comes_last_and_other_links_go_on() {
    let wan = Wan::with(1000, |_, _| Duration::ZERO).unwrap();
    let socket = wan.socket_by_address(|_| Duration::from_millis(50))(plain_socket("127.0.0.1:0"));
    let (first, first_address) = reader().await;
    let (second, second_address) = reader().await;
    for mark in [1, 2, 3] {
        send(&socket, first_address, &[mark; 400], None);
    }
    send(&socket, second_address, &[4; 400], None);
    assert_eq!(receive(&first).await.0, [1; 400]);
    assert_eq!(receive(&first).await.0, [2; 400]);
    assert_eq!(receive(&second).await.0, [4; 400]);
    // There is room again once the link has emptied.
    send(&socket, first_address, &[5; 1000], None);
    assert_eq!(receive(&first).await.0, [5; 1000]);
    counts(&wan, Counters { delivered: 4, dropped_full: 1, ..Counters::default() }).await;
}

#[tokio::test]
async fn a_transmit_of_several_segments_stays_one() {
    let wan = Wan::new().unwrap();
    let socket = wan.socket_by_address(|_| Duration::from_millis(5))(plain_socket("127.0.0.1:0"));
    if socket.max_transmit_segments() < 3 {
        return;
    }
    let (reader, address) = reader().await;
    let contents: Vec<u8> = [[1; 100], [2; 100], [3; 100]].concat();
    send(&socket, address, &contents[..250], Some(100));
    assert_eq!(receive(&reader).await.0, [1; 100]);
    assert_eq!(receive(&reader).await.0, [2; 100]);
    assert_eq!(receive(&reader).await.0, [3; 50]);
    counts(&wan, Counters { delivered: 1, ..Counters::default() }).await;
}

#[tokio::test]
async fn the_thread_ends_with_the_last_handle() {
    let wan = Wan::new().unwrap();
    let socket = wan.socket_by_address(|_| Duration::from_secs(3600))(plain_socket("127.0.0.1:0"));
    send(&socket, reader().await.1, b"never", None);
    assert_eq!(wan.counters().bytes_under_way, 5);
    let shared = wan.delivery.shared_for_test();
    drop((wan, socket));
    let ended = async {
        while shared.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, ended).await.expect("the thread ends");
}
