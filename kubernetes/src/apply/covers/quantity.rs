//! Quantities of Kubernetes, as far as it takes to tell whether two are the same.
//!
//! Spec: `k8s.io/apimachinery` resource.Quantity: a signed decimal number with a suffix of
//! ten (`n` to `E`), of two (`Ki` to `Ei`), or an exponent (`e3`, `E3`).

use serde_json::Value;

/// A quantity in thousand-millionths, the smallest step that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quantity(i128);

impl Quantity {
    /// The quantity of a text or a number; `None` for anything else, and for one that is
    /// too large or too fine to be compared.
    pub(super) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => Self::parse(&number.to_string()),
            Value::String(text) => Self::parse(text),
            Value::Array(_) | Value::Bool(_) | Value::Null | Value::Object(_) => None,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('+').unwrap_or(text);
        let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
        let end = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, suffix) = text.split_at_checked(end)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = format!("{whole}{fraction}");
        if digits.len() > DIGITS_MAX {
            return None;
        }
        let digits: i128 = digits.parse().ok()?;
        let (base, power) = scale(suffix)?;
        let decimals = i32::try_from(fraction.len()).ok()?;
        let (factor, shift) = match base {
            10 => (1, power.checked_add(NANO)?.checked_sub(decimals)?),
            _ => (2_i128.checked_pow(u32::try_from(power).ok()?)?, NANO.checked_sub(decimals)?),
        };
        let scaled = digits.checked_mul(factor)?;
        let step = 10_i128.checked_pow(shift.unsigned_abs())?;
        let nano = if shift < 0 {
            (scaled % step == 0).then_some(scaled / step)?
        } else {
            scaled.checked_mul(step)?
        };
        Some(Self(sign * nano))
    }
}

/// The base and the power of a suffix.
fn scale(suffix: &str) -> Option<(u8, i32)> {
    if let Some((_, scale)) = SUFFIXES.iter().find(|(known, _)| *known == suffix) {
        return Some(*scale);
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    Some((
        10,
        exponent.parse().ok().filter(|power| (-EXPONENT_MAX..=EXPONENT_MAX).contains(power))?,
    ))
}

/// Spec: resource.Quantity, "suffix".
const SUFFIXES: &[(&str, (u8, i32))] = &[
    ("", (10, 0)),
    ("n", (10, -9)),
    ("u", (10, -6)),
    ("m", (10, -3)),
    ("k", (10, 3)),
    ("M", (10, 6)),
    ("G", (10, 9)),
    ("T", (10, 12)),
    ("P", (10, 15)),
    ("E", (10, 18)),
    ("Ki", (2, 10)),
    ("Mi", (2, 20)),
    ("Gi", (2, 30)),
    ("Ti", (2, 40)),
    ("Pi", (2, 50)),
    ("Ei", (2, 60)),
];
/// Digits behind the point of the smallest quantity.
const NANO: i32 = 9;
/// Digits that are read; quantities of the server have at most 19.
const DIGITS_MAX: usize = 30;
const EXPONENT_MAX: i32 = 18;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_of_one_quantity_are_equal() {
        let same = [
            (json!("0.5"), json!("500m")),
            (json!(1), json!("1")),
            (json!("1000m"), json!("1")),
            (json!("1024Mi"), json!("1Gi")),
            (json!("1.5Gi"), json!("1536Mi")),
            (json!("1e3"), json!("1k")),
            (json!("128974848"), json!("123Mi")),
            (json!("+1"), json!("1.0")),
        ];
        for (one, other) in same {
            let found = (Quantity::of(&one), Quantity::of(&other));
            assert!(found.0.is_some() && found.0 == found.1, "{one} and {other}: {found:?}");
        }
        assert_ne!(Quantity::of(&json!("1G")), Quantity::of(&json!("1Gi")));
        assert_ne!(Quantity::of(&json!("-1")), Quantity::of(&json!("1")));
    }

    #[test]
    fn what_is_no_quantity_is_none_and_never_a_panic() {
        let long = "9".repeat(400);
        let bad = ["", "m", "1x", "1.2.3", "é", "1e", "1e999", "0.0000000001", "9e18Ei", &long];
        for text in bad {
            assert_eq!(Quantity::of(&json!(text)), None, "{text}");
        }
        assert_eq!(Quantity::of(&json!(null)), None);
        assert_eq!(Quantity::of(&json!("999999999999999999999999999Ei")), None);
    }
}
