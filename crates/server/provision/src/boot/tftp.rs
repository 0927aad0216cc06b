//! TFTP for reading (RFC 1350) with block size and transfer size (RFC 2348, 2349): packets, and one transfer as a state
//! machine. Pure.

/// The server's port.
pub(crate) const PORT: u16 = 69;
/// Without the option.
const BLOCK: usize = 512;
/// What fits a packet of an Ethernet; larger wishes get this.
const LARGEST_BLOCK: usize = 1428;
const SMALLEST_BLOCK: usize = 8;
/// A request has a name and some options.
pub(crate) const LONGEST_REQUEST: usize = 512;
/// How often a packet is sent again before the client is given up.
const ATTEMPTS: usize = 5;
/// Files whose blocks can be counted.
pub(crate) const LARGEST_FILE: u64 = 8 << 20;

const READ: u16 = 1;
const WRITE: u16 = 2;
const DATA: u16 = 3;
const ACKNOWLEDGEMENT: u16 = 4;
const ERROR: u16 = 5;
const OPTIONS: u16 = 6;

/// A refusal, as clients know them by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    NotFound,
    /// Files are only read here.
    Forbidden,
    Malformed,
}

/// A request to read a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) name: String,
    block: Option<usize>,
    wants_size: bool,
}

impl Request {
    /// Reads a client's first packet; none to what needs no answer.
    pub(crate) fn parse(packet: &[u8]) -> Result<Self, Option<Refusal>> {
        let (code, rest) = split(packet).ok_or(None)?;
        match code {
            READ => {}
            WRITE => return Err(Some(Refusal::Forbidden)),
            // Answers to errors would make errors.
            ERROR => return Err(None),
            _ => return Err(Some(Refusal::Malformed)),
        }
        let malformed = || Some(Refusal::Malformed);
        if packet.len() > LONGEST_REQUEST || rest.last() != Some(&0) {
            return Err(malformed());
        }
        let mut texts = rest[..rest.len() - 1].split(|byte| *byte == 0).map(std::str::from_utf8);
        let mut next = || texts.next().transpose().map_err(|_| malformed());
        let name = next()?.filter(|name| !name.is_empty()).ok_or_else(malformed)?.to_owned();
        let mode = next()?.ok_or_else(malformed)?;
        // The other modes are for text and mail.
        if !mode.eq_ignore_ascii_case("octet") {
            return Err(malformed());
        }
        let mut request = Self { name, block: None, wants_size: false };
        while let (Some(option), Some(value)) = (next()?, next()?) {
            if option.eq_ignore_ascii_case("blksize") {
                let wanted: usize = value.parse().map_err(|_| malformed())?;
                request.block = (wanted >= SMALLEST_BLOCK).then_some(wanted.min(LARGEST_BLOCK));
            }
            request.wants_size |= option.eq_ignore_ascii_case("tsize");
        }
        Ok(request)
    }
}

/// What to do next in a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Send(Vec<u8>),
    /// Nothing, until the next packet or timeout.
    Wait,
    Done,
    GiveUp,
}

/// A file on its way to one client, packet by packet.
#[derive(Debug)]
pub(crate) struct Transfer {
    data: Vec<u8>,
    block: usize,
    /// The number of the packet that the client has to acknowledge; 0 is that of the options.
    awaited: u64,
    packet: Vec<u8>,
    attempts: usize,
}

impl Transfer {
    /// Begins, with the first packet to send.
    pub(crate) fn begin(request: &Request, data: Vec<u8>) -> (Self, Vec<u8>) {
        let mut transfer =
            Self { block: request.block.unwrap_or(BLOCK), data, awaited: 0, packet: Vec::new(), attempts: 0 };
        if request.block.is_none() && !request.wants_size {
            transfer.advance();
        } else {
            let mut packet = OPTIONS.to_be_bytes().to_vec();
            let mut option = |name: &str, value: usize| {
                packet.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
            };
            if let Some(block) = request.block {
                option("blksize", block);
            }
            if request.wants_size {
                option("tsize", transfer.data.len());
            }
            transfer.packet = packet;
        }
        let first = transfer.packet.clone();
        (transfer, first)
    }

    /// Takes a packet of the client.
    pub(crate) fn receive(&mut self, packet: &[u8]) -> Step {
        match split(packet) {
            Some((ACKNOWLEDGEMENT, [high, low])) => {
                let number = u16::from_be_bytes([*high, *low]);
                // An older one again is not answered: its repetition would double every packet that follows.
                if u64::from(number) != self.awaited % 0x1_0000 {
                    return Step::Wait;
                }
                if self.is_last() {
                    return Step::Done;
                }
                self.advance();
                Step::Send(self.packet.clone())
            }
            Some((ERROR, _)) => Step::GiveUp,
            _ => Step::Wait,
        }
    }

    /// The client said nothing for a while.
    pub(crate) fn repeat(&mut self) -> Step {
        self.attempts += 1;
        if self.attempts < ATTEMPTS { Step::Send(self.packet.clone()) } else { Step::GiveUp }
    }

    /// A block that is not full ends the file.
    fn is_last(&self) -> bool {
        self.awaited > 0 && self.packet.len() < self.block + 4
    }

    fn advance(&mut self) {
        let start = usize::try_from(self.awaited).unwrap_or(usize::MAX).saturating_mul(self.block).min(self.data.len());
        let end = start.saturating_add(self.block).min(self.data.len());
        self.awaited += 1;
        self.attempts = 0;
        let [.., high, low] = self.awaited.to_be_bytes();
        self.packet = [&DATA.to_be_bytes()[..], &[high, low], &self.data[start..end]].concat();
    }
}

/// A packet that says why there is no file.
pub(crate) fn refuse(refusal: Refusal) -> Vec<u8> {
    let (code, text): (u16, &str) = match refusal {
        Refusal::NotFound => (1, "no such file"),
        Refusal::Forbidden => (2, "files can only be read"),
        Refusal::Malformed => (4, "malformed request"),
    };
    [&ERROR.to_be_bytes()[..], &code.to_be_bytes(), text.as_bytes(), &[0]].concat()
}

fn split(packet: &[u8]) -> Option<(u16, &[u8])> {
    let (code, rest) = packet.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*code), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(parts: &[&str]) -> Vec<u8> {
        let mut packet = READ.to_be_bytes().to_vec();
        parts.iter().for_each(|part| packet.extend_from_slice(format!("{part}\0").as_bytes()));
        packet
    }

    fn acknowledge(number: u16) -> Vec<u8> {
        [ACKNOWLEDGEMENT.to_be_bytes(), number.to_be_bytes()].concat()
    }

    /// A client that acknowledges everything; the file and the number of packets.
    fn fetch(request: &Request, data: &[u8]) -> (Vec<u8>, usize) {
        let (mut transfer, mut packet) = Transfer::begin(request, data.to_vec());
        let (mut got, mut packets) = (Vec::new(), 0);
        loop {
            packets += 1;
            let (code, rest) = split(&packet).unwrap();
            let number = if code == OPTIONS { 0 } else { u16::from_be_bytes([rest[0], rest[1]]) };
            if code == DATA {
                got.extend_from_slice(&rest[2..]);
            }
            match transfer.receive(&acknowledge(number)) {
                Step::Send(next) => packet = next,
                Step::Done => return (got, packets),
                other => panic!("{other:?} after packet {packets}"),
            }
        }
    }

    #[test]
    fn a_request_is_read_with_its_options() {
        let packet = read(&["ipxe/amd64/snp.efi", "octet", "tsize", "0", "blksize", "1468", "windowsize", "4"]);
        let request = Request::parse(&packet).unwrap();
        assert_eq!(request, Request { name: "ipxe/amd64/snp.efi".to_owned(), block: Some(1428), wants_size: true });
        let plain = Request::parse(&read(&["a", "OCTET"])).unwrap();
        assert_eq!(plain, Request { name: "a".to_owned(), block: None, wants_size: false });
    }

    #[test]
    fn other_requests_are_refused_and_errors_are_not_answered() {
        let mut write = read(&["a", "octet"]);
        write[1] = 2;
        assert_eq!(Request::parse(&write), Err(Some(Refusal::Forbidden)));
        let mut error = read(&["a", "octet"]);
        error[1] = 5;
        assert_eq!(Request::parse(&error), Err(None));
        assert_eq!(Request::parse(b""), Err(None));
        let long = "a".repeat(LONGEST_REQUEST);
        for bad in [&["", "octet"][..], &["a"], &["a", "netascii"], &["a", "octet", "blksize", "x"], &[&long, "octet"]]
        {
            assert_eq!(Request::parse(&read(bad)), Err(Some(Refusal::Malformed)), "{bad:?}");
        }
        assert_eq!(Request::parse(b"\0\x01a\0octet"), Err(Some(Refusal::Malformed)), "not terminated");
        assert_eq!(&refuse(Refusal::NotFound)[..4], [0, 5, 0, 1]);
    }

    #[test]
    fn a_file_of_whole_blocks_ends_with_an_empty_one() {
        let request = Request { name: String::new(), block: None, wants_size: false };
        assert_eq!(fetch(&request, &[7; 1024]), (vec![7; 1024], 3));
        assert_eq!(fetch(&request, &[7; 1023]), (vec![7; 1023], 2));
        assert_eq!(fetch(&request, &[]), (vec![], 1));
    }

    #[test]
    fn block_numbers_begin_again_in_long_files() {
        let request = Request { name: String::new(), block: Some(8), wants_size: true };
        let data: Vec<u8> = (0..0x1_0005 * 8 + 3).map(|n: u32| n.to_le_bytes()[0]).collect();
        let (got, packets) = fetch(&request, &data);
        assert!(got == data);
        assert_eq!(packets, 0x1_0005 + 2);
    }

    #[test]
    fn silence_is_answered_with_the_same_packet_and_then_with_an_end() {
        let request = Request { name: String::new(), block: None, wants_size: false };
        let (mut transfer, first) = Transfer::begin(&request, vec![1; 600]);
        for _ in 1..ATTEMPTS {
            assert_eq!(transfer.repeat(), Step::Send(first.clone()));
        }
        assert_eq!(transfer.repeat(), Step::GiveUp);
        let (mut transfer, _) = Transfer::begin(&request, vec![1; 600]);
        assert_eq!(transfer.receive(&acknowledge(0)), Step::Wait, "an old acknowledgement");
        assert!(matches!(transfer.receive(&acknowledge(1)), Step::Send(_)));
        assert_eq!(transfer.receive(&acknowledge(1)), Step::Wait);
        assert_eq!(transfer.receive(&refuse(Refusal::Malformed)), Step::GiveUp);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_stumble(packet in prop::collection::vec(any::<u8>(), 0..600), data in prop::collection::vec(any::<u8>(), 0..2000)) {
            if let Ok(request) = Request::parse(&packet) {
                let (mut transfer, _) = Transfer::begin(&request, data);
                transfer.receive(&packet);
            }
        }

        #[test]
        fn every_file_arrives(data in prop::collection::vec(any::<u8>(), 0..5000), block in prop::option::of(8usize..1500)) {
            let options = block.map(|block| vec!["blksize".to_owned(), block.to_string()]).unwrap_or_default();
            let parts: Vec<&str> = ["a", "octet"].into_iter().chain(options.iter().map(String::as_str)).collect();
            let request = Request::parse(&read(&parts)).unwrap();
            prop_assert_eq!(fetch(&request, &data).0, data);
        }
    }
}
