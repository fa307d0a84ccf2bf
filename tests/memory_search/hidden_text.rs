//! A random text that is stored in a masked form, and a search for it in the memory of the process.

use std::{
    fs::{self, File},
    iter,
    ops::Range,
    os::unix::fs::FileExt,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use zeroize::Zeroizing;

/// The mask of each byte. The text is ASCII, so no masked byte occurs in it.
const MASK: u8 = 0x80;
/// The length of the text. It fits into no register, so a register that was saved on a stack cannot
/// hold a copy of the whole text.
const LENGTH: usize = 256;
/// The number of bytes that are read from memory at once.
const CHUNK: usize = 1 << 20;
const PAGE: usize = 4096;

/// A random text. Only the masked form is kept in memory.
pub(crate) struct HiddenText(Vec<u8>);

impl HiddenText {
    pub(crate) fn random() -> Self {
        Self(iter::repeat_with(|| fastrand::alphanumeric() as u8 ^ MASK).take(LENGTH).collect())
    }

    /// Returns the text. The allocator overwrites it when the value is dropped.
    pub(crate) fn reveal(&self) -> String {
        self.0.iter().map(|byte| char::from(byte ^ MASK)).collect()
    }

    /// Returns the beginning of the text in base64, as it stands after the encoded text `id:`.
    pub(crate) fn in_base64(&self) -> Self {
        let text = Zeroizing::new(self.reveal());
        let base64 = Zeroizing::new(BASE64_STANDARD.encode(&text[..LENGTH / 4 * 3]));
        Self(base64.bytes().map(|byte| byte ^ MASK).collect())
    }

    pub(crate) fn is_equal_to(&self, text: &[u8]) -> bool {
        text.len() == LENGTH
            && iter::zip(&self.0, text).all(|(masked, byte)| masked ^ MASK == *byte)
    }

    /// Returns the number of places of the text in all private writable memory of the process: the
    /// heap, the stacks, the thread-local memory and the statics.
    pub(crate) fn count_in_memory(&self) -> usize {
        let memory = File::open("/proc/self/mem").unwrap();
        let mut buffer = vec![0; CHUNK];
        let start = buffer.as_ptr().addr() as u64;
        let buffer_range = start..start + CHUNK as u64;
        let regions = private_writable_regions();
        regions
            .into_iter()
            .map(|region| self.count_in(region, &memory, &mut buffer, &buffer_range))
            .sum()
    }

    /// Counts in one region. Consecutive chunks overlap, so that a text on their border is found.
    fn count_in(
        &self,
        region: Range<u64>,
        memory: &File,
        buffer: &mut [u8],
        excluded: &Range<u64>,
    ) -> usize {
        let mut count = 0;
        let mut address = region.start;
        while address + LENGTH as u64 <= region.end {
            let length = buffer.len().min(usize::try_from(region.end - address).unwrap());
            // A region that was unmapped since it was listed cannot be read.
            let Ok(read) = memory.read_at(&mut buffer[..length], address) else { break };
            if read < LENGTH {
                break;
            }
            // The buffer holds a copy of the chunk that was read before.
            let is_copy = |at: usize| excluded.contains(&(address + at as u64));
            let chunk = &buffer[..read];
            count += self.positions(chunk).filter(|at| !is_copy(*at)).count();
            address += (read - LENGTH + 1) as u64;
        }
        count
    }

    fn positions(&self, chunk: &[u8]) -> impl Iterator<Item = usize> {
        // Most pages were never written. A comparison with zeros is much faster than a search.
        let is_used = |start: &usize| {
            let page = &chunk[*start..chunk.len().min(start + PAGE)];
            page != &[0; PAGE][..page.len()]
        };
        let used_pages = (0..chunk.len()).step_by(PAGE).filter(is_used);
        let first = self.0[0] ^ MASK;
        used_pages
            .flat_map(|start| start..chunk.len().min(start + PAGE))
            .filter(move |at| chunk[*at] == first)
            .filter(|at| chunk.get(*at..at + LENGTH).is_some_and(|text| self.is_equal_to(text)))
    }
}

fn private_writable_regions() -> Vec<Range<u64>> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let region = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (range, permissions) = (fields.next()?, fields.next()?);
        let (start, end) = range.split_once('-')?;
        let is_searched = permissions.starts_with("rw") && permissions.ends_with('p');
        let address = |text| u64::from_str_radix(text, 16).unwrap();
        is_searched.then(|| address(start)..address(end))
    };
    maps.lines().filter_map(region).collect()
}
