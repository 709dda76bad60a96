//! Reading `[104,105,…]` into bytes at memory speed.
//!
//! A browser sends a file as an array of numbers: millions of them, one to three digits each, with nothing
//! but commas between. Read one after the other, each number waits for the end of the one before. So the
//! commas of 64 bytes of text are found first, all at once, and then each number is read by the place of
//! its comma, on its own: nothing but the list of places is waited for, and no branch depends on digits.
//!
//! This is a fast path and no second parser: a block with anything in it that is not such a number is left
//! to the [`Scanner`](crate::scan::Scanner), which reads, or refuses, it the ordinary way.

/// Bytes of text looked at together: one bit each in a word.
const BLOCK: usize = 64;

/// Bytes loaded to read one number: up to three digits, and one before them.
const WINDOW: usize = 4;

/// Appends the numbers that stand at `start` of `text`, as long as each has one to three digits without a
/// leading zero, is at most 255 and is followed by a comma at once. Returns how many bytes of text that
/// were; at least the last 64 bytes of a text are left over.
pub(crate) fn read_run(text: &[u8], start: usize, bytes: &mut Vec<u8>) -> usize {
    // The window of the first number begins before it; in a real message there is text before.
    let Some(mut base) = start.checked_sub(WINDOW) else { return 0 };
    // Where the number that is next begins; at most three bytes before the block it ends in.
    let mut next = start;
    while let Some(block) = text.get(base..).and_then(|rest| rest.first_chunk::<{ WINDOW + BLOCK }>()) {
        let begun = base + WINDOW - next;
        let marks = Marks::of(block);
        if !marks.are_of_numbers(begun) {
            break;
        }
        let mut read = [0; BLOCK];
        let mut count = 0;
        let mut fits = true;
        let mut begin = begun.wrapping_neg();
        let mut commas = marks.commas;
        while commas != 0 {
            let comma = commas.trailing_zeros() as usize % BLOCK;
            commas &= commas - 1;
            let [a, b, c, d] = [block[comma], block[comma + 1], block[comma + 2], block[comma + 3]];
            fits &=
                number(u32::from_le_bytes([a, b, c, d]), comma.wrapping_sub(begin), &mut read[count % BLOCK]);
            count += 1;
            begin = comma + 1;
        }
        if !fits {
            break;
        }
        bytes.extend_from_slice(&read[..count]);
        next = (base + WINDOW).wrapping_add(begin);
        base += BLOCK;
    }
    next - start
}

/// One bit for each byte of a block.
struct Marks {
    commas: u64,
    digits: u64,
}

impl Marks {
    /// Of the last 64 bytes.
    fn of(block: &[u8; WINDOW + BLOCK]) -> Self {
        const COMMAS: u64 = 0x2c2c_2c2c_2c2c_2c2c;
        const ZEROS: u64 = 0x3030_3030_3030_3030;
        const LOWS: u64 = 0x7f7f_7f7f_7f7f_7f7f;
        /// Added to 10 or more it reaches the high bit.
        const BEYOND_NINE: u64 = 0x7676_7676_7676_7676;
        let (words, _) = block[WINDOW..].as_chunks::<8>();
        let mut marks = Self { commas: 0, digits: 0 };
        for (index, word) in words.iter().enumerate() {
            let x = u64::from_le_bytes(*word) ^ COMMAS;
            let y = u64::from_le_bytes(*word) ^ ZEROS;
            // The high bit of each byte that is one, and no other bit.
            let commas = !(((x & LOWS) + LOWS) | x | LOWS);
            let digits = !(((y & LOWS) + BEYOND_NINE) | y | LOWS);
            marks.commas |= gather(commas) << (8 * index);
            marks.digits |= gather(digits) << (8 * index);
        }
        marks
    }

    /// Nothing but commas and digits, no comma without a digit before it, never four digits in a row; `begun`
    /// digits of the first number stand before the block.
    fn are_of_numbers(&self, begun: usize) -> bool {
        let Self { commas, digits } = self;
        let after_digit = (digits << 1) | u64::from(begun > 0);
        let after_two = (after_digit & digits) << 1 | u64::from(begun > 1);
        let after_three = (after_two & digits) << 1 | u64::from(begun > 2);
        commas | digits == u64::MAX && commas & !after_digit == 0 && digits & after_three == 0
    }
}

/// The high bits of eight bytes as one byte.
fn gather(highs: u64) -> u64 {
    (highs >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

/// Reads the number whose `digits` digits, one to three, are the last bytes of `window` (the first being the
/// lowest). Whether it fits a byte and has no leading zero.
fn number(window: u32, digits: usize, byte: &mut u8) -> bool {
    /// By the count of digits: which bytes of the window they are, and the least number written so, one digit
    /// a byte.
    const SHAPES: [(u32, u32); 4] =
        [(0, u32::MAX), (0xff00_0000, 0), (0xffff_0000, 0x0100), (0xffff_ff00, 0x01_0000)];
    const MOST: u32 = 0x02_0505;
    let (mask, least) = SHAPES[digits % 4];
    let digits = (window ^ 0x3030_3030) & mask;
    // Ones, ten times the tens and a hundred times the hundreds meet in the fourth byte.
    *byte = (digits.wrapping_mul(1 + (10 << 8) + (100 << 16)) >> 24) as u8;
    let in_order = digits.swap_bytes();
    least <= in_order && in_order <= MOST
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of `numbers` when text stands before and behind.
    fn read(numbers: &str) -> (Vec<u8>, usize) {
        let text = format!("{{\"content\":[{numbers}0]{}", " ".repeat(2 * BLOCK));
        let mut bytes = Vec::new();
        let taken = read_run(text.as_bytes(), "{\"content\":[".len(), &mut bytes);
        (bytes, taken)
    }

    #[test]
    fn every_byte_is_read_in_every_place_of_a_block() {
        for shift in 0..BLOCK {
            let expected: Vec<u8> = std::iter::repeat_n(7, shift).chain(0..=255).collect();
            let text: String = expected.iter().map(|byte| format!("{byte},")).collect();
            let (bytes, taken) = read(&text);
            assert!(text.len() - taken < 2 * BLOCK, "{taken} of {}", text.len());
            let as_text: String = bytes.iter().map(|byte| format!("{byte},")).collect();
            assert_eq!(as_text, text[..taken], "after {shift} numbers");
        }
    }

    #[test]
    fn what_is_no_byte_is_left_to_the_scanner_wherever_it_stands() {
        for wrong in [
            "256", "999", "1000", "00", "01", "007", "-1", "1e1", "1.0", " 1", "1 ", "", "\"1\"", "/", ":",
            "0x1",
        ] {
            for before in 0..2 * BLOCK {
                let good = "10,".repeat(before);
                let (bytes, taken) = read(&format!("{good}{wrong},{}", "5,".repeat(100)));
                assert!(bytes.len() <= before, "'{wrong}' was read after {before} numbers");
                assert_eq!(taken, 3 * bytes.len());
                assert!(bytes.iter().all(|&byte| byte == 10));
            }
        }
    }

    #[test]
    fn nothing_is_read_without_text_before_or_behind() {
        let mut bytes = Vec::new();
        assert_eq!(
            read_run(
                b"1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27",
                0,
                &mut bytes
            ),
            0
        );
        assert_eq!(read_run(b"[1,2,3]", 4, &mut bytes), 0);
        assert!(bytes.is_empty());
    }
}
