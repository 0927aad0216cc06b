//! Questions to servers and to clocks of this machine.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::rand;
use stdx::{Clock, SystemClock};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};

use crate::client::Target;
use crate::clock::device_sample;
use crate::packet::{Answer, Request, Timestamp};

const PORT: u16 = 123;
/// For the look-up of a name and for the answer of an address, each.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The most addresses of a name that are tried.
const MAX_ADDRESSES: usize = 4;
/// Room for an answer with extensions, which are not read.
const MAX_PACKET: usize = 1024;

/// A server gave no usable answer.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum AskError {
    #[error("looking up time server {server}")]
    LookUp {
        server: String,
        #[source]
        cause: io::Error,
    },
    #[error("time server {server} has no address")]
    NoAddress { server: String },
    #[error("asking time server {server} at {address}")]
    Exchange {
        server: String,
        address: IpAddr,
        #[source]
        cause: io::Error,
    },
    #[error("reading clock {path}")]
    Device {
        path: String,
        #[source]
        cause: io::Error,
    },
}

/// Asks a server once.
#[async_trait]
pub trait Ask: std::fmt::Debug + Send + Sync + 'static {
    /// The answer, and the address that gave it. Takes at most half a minute.
    async fn ask(&self, target: &Target) -> Result<(Answer, Option<IpAddr>), AskError>;
}

/// Asks over UDP; servers whose names begin with `/dev/ptp` are clocks of this machine (PTP).
#[derive(Debug)]
pub struct KernelAsk {
    port: u16,
}

impl Default for KernelAsk {
    fn default() -> Self {
        Self { port: PORT }
    }
}

impl KernelAsk {
    /// Servers at another port than NTP's, for tests.
    #[must_use]
    pub const fn at_port(port: u16) -> Self {
        Self { port }
    }

    async fn addresses(&self, target: &Target) -> Result<Vec<IpAddr>, AskError> {
        if let Some(address) = target.address {
            return Ok(vec![address]);
        }
        let server = target.server.as_str();
        let look_up = timeout(TIMEOUT, tokio::net::lookup_host((server, self.port)));
        let found = look_up.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let found = found.map_err(|cause| AskError::LookUp { server: server.to_owned(), cause })?;
        Ok(found.map(|address| address.ip()).take(MAX_ADDRESSES).collect())
    }
}

#[async_trait]
impl Ask for KernelAsk {
    async fn ask(&self, target: &Target) -> Result<(Answer, Option<IpAddr>), AskError> {
        let server = || target.server.clone();
        if let Some(name) = target.server.strip_prefix("/dev/") {
            // Opening any other device could do anything.
            if !name.starts_with("ptp") || name.contains('/') {
                let cause =
                    io::Error::new(io::ErrorKind::InvalidInput, "not a PTP clock: its name must begin with ptp");
                return Err(AskError::Device { path: server(), cause });
            }
            let sample = device_sample(&target.server);
            let sample = sample.map_err(|cause| AskError::Device { path: server(), cause })?;
            return Ok((Answer::Sample(sample), None));
        }
        let mut last = AskError::NoAddress { server: server() };
        for address in self.addresses(target).await? {
            let answer = timeout(TIMEOUT, exchange(SocketAddr::new(address, self.port))).await;
            match answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(answer) => return Ok((answer, Some(address))),
                Err(cause) => last = AskError::Exchange { server: server(), address, cause },
            }
        }
        Err(last)
    }
}

async fn exchange(server: SocketAddr) -> io::Result<Answer> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let mut cookie = [0; 8];
    rand::fill(&mut cookie).map_err(|_| io::Error::other("no randomness"))?;
    let since_epoch = SystemClock.now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let request = Request::new(u64::from_ne_bytes(cookie), Timestamp::from_unix(since_epoch));
    let sent = Instant::now();
    socket.send(&request.encode()).await?;
    loop {
        let mut packet = [0; MAX_PACKET];
        let length = socket.recv(&mut packet).await?;
        let elapsed = sent.elapsed();
        match request.decode(packet.get(..length).unwrap_or_default(), elapsed) {
            Ok(answer) => return Ok(answer),
            // From somebody else, or an answer to an earlier request.
            Err(error) if error.is_foreign() => {}
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::answer;

    /// A server whose answers a function makes.
    async fn serving(answers: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> KernelAsk {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        stdx::tasks::spawn("ntp server", async move {
            let mut packet = [0; 100];
            while let Ok((length, from)) = socket.recv_from(&mut packet).await {
                for answer in answers(&packet[..length]) {
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        })
        .detach();
        KernelAsk::at_port(port)
    }

    fn now_plus(seconds: u64) -> Timestamp {
        let since_epoch = SystemClock.now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Timestamp::from_unix(since_epoch + Duration::from_secs(seconds))
    }

    fn localhost() -> Target {
        Target { server: "localhost".into(), address: Some([127, 0, 0, 1].into()) }
    }

    #[tokio::test]
    async fn a_server_ahead_of_this_clock_gives_a_positive_offset_and_foreign_packets_do_not_count() {
        let ask = serving(|request| {
            let (time, mut foreign) = (now_plus(100), request.to_vec());
            foreign[40] ^= 1;
            vec![b"noise".to_vec(), answer(&foreign, time, time).to_vec(), answer(request, time, time).to_vec()]
        })
        .await;
        let (answer, address) = ask.ask(&localhost()).await.unwrap();
        let Answer::Sample(sample) = answer else { panic!("{answer:?}") };
        assert!((sample.offset.seconds() - 100.0).abs() < 1.0, "{}", sample.offset);
        assert_eq!(address, Some([127, 0, 0, 1].into()));
    }

    #[tokio::test]
    async fn an_unusable_answer_and_an_absent_name_are_errors_that_name_the_server() {
        let ask = serving(|request| vec![answer(request, Timestamp(0), Timestamp(0)).to_vec()]).await;
        let error = ask.ask(&localhost()).await.unwrap_err();
        assert!(
            matches!(&error, AskError::Exchange { cause, .. } if cause.kind() == io::ErrorKind::InvalidData),
            "{error}"
        );
        for (path, kind) in
            [("/dev/ptp-absent", io::ErrorKind::NotFound), ("/dev/watchdog", io::ErrorKind::InvalidInput)]
        {
            let error = ask.ask(&Target { server: path.into(), address: None }).await.unwrap_err();
            assert!(matches!(&error, AskError::Device { cause, .. } if cause.kind() == kind), "{error:?}");
        }
    }
}
