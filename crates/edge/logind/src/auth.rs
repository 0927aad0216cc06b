//! The handshake: who a client is. Pure.

/// The longest line; names of mechanisms and numbers are short.
const LONGEST: usize = 256;
/// Lines until a client has to have begun.
const LINES: usize = 16;

/// What a line of a client leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Answer(String),
    /// Messages follow.
    Begin,
    /// It is not talked to any more.
    Refuse,
}

/// The state of a handshake with a client of this user, as the kernel knows it.
#[derive(Debug)]
pub(crate) struct Auth {
    user: u32,
    guid: String,
    lines: usize,
    /// It waits for the data of EXTERNAL.
    wants_data: bool,
    is_known: bool,
}

impl Auth {
    pub(crate) const fn new(user: u32, guid: String) -> Self {
        Self { user, guid, lines: 0, wants_data: false, is_known: false }
    }

    /// Takes the first line out of what came; none while it has no end.
    pub(crate) fn take_line(bytes: &mut Vec<u8>) -> Result<Option<String>, ()> {
        match bytes.windows(2).position(|pair| pair == b"\r\n") {
            Some(end) if end <= LONGEST => {
                let line = bytes.drain(..end + 2).take(end).collect();
                String::from_utf8(line).map(Some).map_err(drop)
            }
            None if bytes.len() <= LONGEST => Ok(None),
            _ => Err(()),
        }
    }

    pub(crate) fn line(&mut self, line: &str) -> Step {
        self.lines += 1;
        if self.lines > LINES {
            return Step::Refuse;
        }
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        let wants_data = std::mem::take(&mut self.wants_data);
        match (command, rest) {
            ("AUTH", "EXTERNAL") => {
                self.wants_data = true;
                Step::Answer("DATA".to_owned())
            }
            ("AUTH", rest) => match rest.strip_prefix("EXTERNAL ") {
                Some(user) => self.external(user),
                None => rejected(),
            },
            ("DATA", user) if wants_data => self.external(user),
            ("NEGOTIATE_UNIX_FD", "") if self.is_known => Step::Answer("AGREE_UNIX_FD".to_owned()),
            ("BEGIN", "") if self.is_known => Step::Begin,
            ("BEGIN", _) => Step::Refuse,
            ("CANCEL" | "ERROR", _) => rejected(),
            _ => Step::Answer("ERROR".to_owned()),
        }
    }

    /// The user's number in decimal, written in hexadecimal; nothing stands for whom the kernel knows.
    fn external(&mut self, text: &str) -> Step {
        let expected = stdx::hex(self.user.to_string().as_bytes());
        if text.is_empty() || text.eq_ignore_ascii_case(&expected) {
            self.is_known = true;
            return Step::Answer(format!("OK {}", self.guid));
        }
        rejected()
    }
}

fn rejected() -> Step {
    Step::Answer("REJECTED EXTERNAL".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(user: u32, lines: &[&str]) -> Vec<Step> {
        let mut auth = Auth::new(user, "0f".to_owned());
        lines.iter().map(|line| auth.line(line)).collect()
    }

    fn answer(text: &str) -> Step {
        Step::Answer(text.to_owned())
    }

    #[test]
    fn a_client_that_the_kernel_knows_may_begin() {
        let kubelet = talk(0, &["AUTH", "AUTH EXTERNAL 30", "NEGOTIATE_UNIX_FD", "BEGIN"]);
        let expected = [answer("REJECTED EXTERNAL"), answer("OK 0f"), answer("AGREE_UNIX_FD"), Step::Begin];
        assert_eq!(kubelet, expected);
        let systemd = talk(1000, &["AUTH EXTERNAL", "DATA", "BEGIN"]);
        assert_eq!(systemd, [answer("DATA"), answer("OK 0f"), Step::Begin]);
    }

    #[test]
    fn nobody_begins_without_a_name_or_with_that_of_another() {
        let other = talk(1000, &["AUTH EXTERNAL 30", "NEGOTIATE_UNIX_FD", "BEGIN"]);
        assert_eq!(other, [answer("REJECTED EXTERNAL"), answer("ERROR"), Step::Refuse]);
        assert_eq!(talk(0, &["BEGIN"]), [Step::Refuse]);
        assert_eq!(talk(0, &["DATA"]), [answer("ERROR")]);
        assert_eq!(talk(0, &["AUTH ANONYMOUS", "BEGIN"]), [answer("REJECTED EXTERNAL"), Step::Refuse]);
        assert_eq!(talk(0, &["AUTH"; LINES + 1]).last(), Some(&Step::Refuse));
    }

    #[test]
    fn lines_are_taken_whole_and_have_a_limit() {
        let mut bytes = b"AUTH\r\nBEG".to_vec();
        assert_eq!(Auth::take_line(&mut bytes), Ok(Some("AUTH".to_owned())));
        assert_eq!(Auth::take_line(&mut bytes), Ok(None));
        assert_eq!(bytes, b"BEG");
        assert_eq!(Auth::take_line(&mut vec![b'x'; LONGEST + 1]), Err(()));
        assert_eq!(Auth::take_line(&mut b"\xff\r\n".to_vec()), Err(()));
    }
}
