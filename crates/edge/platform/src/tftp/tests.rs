use super::*;

fn data(block: u16, content: &[u8]) -> Vec<u8> {
    [&DATA.to_be_bytes()[..], &block.to_be_bytes(), content].concat()
}

#[test]
fn a_file_comes_block_by_block() {
    let mut download = Download::new(4096);
    assert_eq!(Download::request("a/b"), b"\0\x01a/b\0octet\0blksize\x001428\0");
    assert_eq!(download.receive(b"\0\x06blksize\x001000\0"), Reaction::Send(acknowledge(0)));
    assert_eq!(download.receive(&data(2, b"later")), Reaction::Ignore);
    assert_eq!(download.receive(&data(1, &[1; 1000])), Reaction::Send(acknowledge(1)));
    // The acknowledgement was lost.
    assert_eq!(download.receive(&data(1, &[1; 1000])), Reaction::Send(acknowledge(1)));
    assert_eq!(download.receive(b"\0\x06blksize\x008\0"), Reaction::Ignore);
    assert_eq!(download.receive(&data(2, b"end")), Reaction::Done(acknowledge(2)));
    assert_eq!(download.content.len(), 1003);
}

#[test]
fn what_a_server_may_not_send_ends_the_download() {
    let failed = |packets: &[&[u8]]| {
        let mut download = Download::new(1000);
        let reactions: Vec<Reaction> = packets.iter().map(|packet| download.receive(packet)).collect();
        match reactions.into_iter().next_back() {
            Some(Reaction::Failed(reason)) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(failed(&[b"\0\x05\0\x01no such file\x1b\0"]), "the server answered error 1: no such file\\u{1b}");
    assert_eq!(failed(&[b"\0\x06blksize\09999\0"]), "the server chose blocks of \"9999\" bytes");
    assert_eq!(failed(&[&data(1, &[0; 513])]), "the server sent a block of 513 bytes");
    assert_eq!(failed(&[&data(1, &[0; 512]), &data(2, &[0; 512])]), "the file is larger than 1000 bytes");
    for nothing in [&b""[..], b"\0", b"\0\x03\0", b"\0\x04\0\x01", b"\0\x09\0\x01"] {
        assert_eq!(Download::new(10).receive(nothing), Reaction::Ignore);
    }
}

#[test]
fn host_port_and_path_are_told_apart() {
    assert_eq!(parts("tftp://10.0.0.1/c.yaml"), Some(("10.0.0.1", 69, "c.yaml")));
    assert_eq!(parts("tftp://[fd00::1]:6969/a/b?m=1"), Some(("fd00::1", 6969, "a/b?m=1")));
    for bad in ["tftp://", "tftp://a", "tftp:///x", "tftp://a/", "tftp://a:b/c", "tftp://[::1/x"] {
        assert_eq!(parts(bad), None, "{bad}");
    }
}

/// A server on loopback that loses the first of every packet that it should answer, and sends each answer twice.
async fn serve(socket: UdpSocket, content: Vec<u8>) {
    let transfer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut buffer = [0; 2048];
    let mut lost = None;
    let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
    assert!(buffer[..length].starts_with(b"\0\x01dir/c.yaml\0octet\0"));
    let mut blocks: Vec<Vec<u8>> = content.chunks(BLOCK).map(<[u8]>::to_vec).collect();
    if content.len().is_multiple_of(BLOCK) {
        blocks.push(Vec::new());
    }
    // Somebody else, at another address of the host: it is ignored.
    let stranger = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    stranger.send_to(b"\0\x05\0\x01go away\0", client).await.unwrap();
    let options = b"\0\x06blksize\x001428\0".to_vec();
    transfer.send_to(&options, client).await.unwrap();
    loop {
        let (length, from) = transfer.recv_from(&mut buffer).await.unwrap();
        assert_eq!((length, from), (4, client));
        let block = number(&buffer, 2).unwrap();
        // Nobody repeats the last one.
        if lost != Some(block) && block.is_multiple_of(3) && usize::from(block) < blocks.len() {
            lost = Some(block);
            // The client repeats itself.
            transfer
                .send_to(
                    if block == 0 { options.clone() } else { data(block, &blocks[usize::from(block) - 1]) }.as_slice(),
                    client,
                )
                .await
                .unwrap();
            continue;
        }
        let Some(content) = blocks.get(usize::from(block)) else { return };
        for _ in 0..2 {
            transfer.send_to(&data(block + 1, content), client).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_file_comes_from_a_server_that_loses_and_repeats_packets() {
    for length in [10, 5 * BLOCK, 5 * BLOCK + 7] {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let url = format!("tftp://{}/dir/c.yaml", socket.local_addr().unwrap());
        let content: Vec<u8> = (0..length).map(|index| u8::try_from(index % 251).unwrap()).collect();
        let server = serve(socket, content.clone());
        let client = fetch(&url, 1 << 20);
        let (fetched, ()) =
            tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(client, server) }).await.unwrap();
        assert!(fetched.unwrap() == content, "{length}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("tftp://{}/x", socket.local_addr().unwrap());
    let begun = Instant::now();
    let error = fetch(&url, 10).await.unwrap_err();
    assert!(matches!(error, TftpError::Silent { .. }), "{error}");
    assert_eq!(begun.elapsed().as_secs(), 1 + 2 + 4 + 8 + 16);
    let error = fetch("tftp://nowhere", 10).await.unwrap_err();
    assert!(matches!(error, TftpError::Url(_)), "{error}");
}
