//! Logs as lines. Pure.

/// Cuts chunks into lines without their ends. Empty lines are left out.
pub(crate) struct Lines {
    longest: usize,
    /// The beginning of a line whose end has not come.
    open: Vec<u8>,
}

impl Lines {
    pub(crate) const fn new(longest: usize) -> Self {
        Self { longest, open: Vec::new() }
    }

    /// Whole lines, those included whose beginning came before.
    pub(crate) fn split(&mut self, chunk: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            let (body, is_whole) = part.strip_suffix(b"\n").map_or((part, false), |body| (body, true));
            let room = self.longest.saturating_sub(self.open.len()).min(body.len());
            self.open.extend(&body[..room]);
            if is_whole {
                let line = String::from_utf8_lossy(&std::mem::take(&mut self.open)).into_owned();
                if !line.trim().is_empty() {
                    lines.push(line);
                }
            }
        }
        lines
    }
}
