//! Typed reading of fields: each reader accepts one kind of value and says, in the words of the field,
//! why it takes no other.

use crate::error::{ErrorCode, Malformed, shorten};
use crate::limits::{MAX_ARG_BYTES, MAX_EXEC_BYTES, MAX_SAFE_INTEGER};
use crate::scan::{Raw, Scanner};
use crate::{Pid, WindowSize};

/// The values of the known fields of one object; unknown ones are skipped, of duplicates the last counts.
pub(crate) struct Fields<'a, const N: usize> {
    /// What goes before a field's name in errors, such as `options.`.
    prefix: &'static str,
    names: [&'static str; N],
    values: [Option<Raw<'a>>; N],
}

impl<'a, const N: usize> Fields<'a, N> {
    pub(crate) fn new(prefix: &'static str, names: [&'static str; N]) -> Self {
        Self { prefix, names, values: [None; N] }
    }

    /// Reads the object that is next.
    pub(crate) fn read(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Malformed> {
        scanner.object(|scanner, key| self.field(scanner, &key))
    }

    /// Reads the value of one field.
    pub(crate) fn field(&mut self, scanner: &mut Scanner<'a>, key: &str) -> Result<(), Malformed> {
        let value = scanner.value()?;
        if let Some(index) = self.names.iter().position(|name| *name == key) {
            self.values[index] = Some(value);
        }
        Ok(())
    }

    /// As it stands there, null included.
    pub(crate) fn raw(&self, name: &str) -> Option<Raw<'a>> {
        let index = self.names.iter().position(|known| *known == name);
        debug_assert!(index.is_some(), "{name} is not collected");
        self.values[index?]
    }

    /// An optional field: null counts as not given.
    pub(crate) fn optional<T>(
        &self,
        name: &str,
        read: impl FnOnce(&str, Raw<'a>) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        match self.raw(name) {
            Some(raw) if !raw.is_null() => read(&self.full_name(name), raw).map(Some),
            _ => Ok(None),
        }
    }

    /// A field that must be there; `accepted` says what for.
    pub(crate) fn required<T>(
        &self,
        name: &str,
        accepted: &str,
        read: impl FnOnce(&str, Raw<'a>) -> Result<T, Malformed>,
    ) -> Result<T, Malformed> {
        let field = self.full_name(name);
        match self.raw(name) {
            Some(raw) => read(&field, raw),
            None => Err(Malformed::missing(&field, accepted)),
        }
    }

    /// `pid`, which must be there.
    pub(crate) fn pid(&self) -> Result<Pid, Malformed> {
        const ACCEPTED: &str = "a process's number, as `spawned` gave it";
        self.required("pid", ACCEPTED, |field, raw| {
            let number = raw.as_whole().and_then(|number| Pid::try_from(number).ok());
            number.ok_or_else(|| Malformed::value(field, ACCEPTED, raw.0))
        })
    }

    /// `cols` and `rows`, which must both be there.
    pub(crate) fn window_size(&self) -> Result<WindowSize, Malformed> {
        const ACCEPTED: &str = "a whole number from 1 to 65535";
        let side = |field: &str, raw: Raw<'a>| {
            let cells =
                raw.as_whole().and_then(|number| u16::try_from(number).ok()).filter(|cells| *cells > 0);
            cells.ok_or_else(|| Malformed::value(field, ACCEPTED, raw.0))
        };
        Ok(WindowSize {
            cols: self.required("cols", ACCEPTED, side)?,
            rows: self.required("rows", ACCEPTED, side)?,
        })
    }

    fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

/// The fields of an object that stands as a value.
pub(crate) fn object_fields<'a, const N: usize>(
    field: &str,
    raw: Raw<'a>,
    prefix: &'static str,
    names: [&'static str; N],
) -> Result<Fields<'a, N>, Malformed> {
    if !raw.is_object() {
        return Err(Malformed::value(field, "an object", raw.0));
    }
    let mut fields = Fields::new(prefix, names);
    fields.read(&mut Scanner::new(raw.0))?;
    Ok(fields)
}

pub(crate) fn boolean(field: &str, raw: Raw<'_>) -> Result<bool, Malformed> {
    raw.as_bool().ok_or_else(|| Malformed::value(field, "true or false", raw.0))
}

/// A position in an output log.
pub(crate) fn position(field: &str, raw: Raw<'_>) -> Result<u64, Malformed> {
    let position = raw.as_whole().filter(|position| *position <= MAX_SAFE_INTEGER);
    position.ok_or_else(|| Malformed::value(field, "a position (`seq`): a whole number from 0", raw.0))
}

/// A string of at most `max` bytes without NUL, which neither paths nor arguments can hold.
pub(crate) fn text(field: &str, raw: Raw<'_>, max: usize) -> Result<String, Malformed> {
    let text = raw.as_string().ok_or_else(|| Malformed::value(field, "a string", raw.0))?;
    if text.contains('\0') {
        return Err(Malformed::value(field, "a string without NUL bytes", raw.0));
    }
    if text.len() > max {
        let given = format!("{} bytes", text.len());
        return Err(Malformed::value(field, &format!("at most {max} bytes long"), &given));
    }
    Ok(text.into_owned())
}

/// One of a few names.
pub(crate) fn one_of<T: Copy>(field: &str, raw: Raw<'_>, names: &[(&str, T)]) -> Result<T, Malformed> {
    let given = raw.as_string();
    let found = names.iter().find(|(name, _)| given.as_deref() == Some(*name));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let accepted: Vec<String> = names.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        Malformed::value(field, &accepted.join(" or "), raw.0)
    })
}

/// What a program is given, counted as execve(2) counts: each string with its NUL and its pointer.
#[derive(Default)]
pub(crate) struct ExecBytes(usize);

impl ExecBytes {
    /// Counts one string of `bytes` bytes.
    pub(crate) fn add(&mut self, field: &str, bytes: usize) -> Result<(), Malformed> {
        self.0 = self.0.saturating_add(bytes + 1 + size_of::<u64>());
        let (bound, what) = match () {
            () if bytes > MAX_ARG_BYTES => (MAX_ARG_BYTES, "it alone"),
            () if self.0 > MAX_EXEC_BYTES => (MAX_EXEC_BYTES, "arguments and environment together"),
            () => return Ok(()),
        };
        let text = format!("{} is too long: {what} may have {bound} bytes (E2BIG)", shorten(field));
        Err(Malformed::new(ErrorCode::ArgumentsTooLong, text))
    }
}
