//! Numbers that need not be whole: what machines have. No setting of the node itself is one.

use super::reader::{Value, kind};
use toml::de::DeValue;

/// A number that can be calculated with.
pub fn finite(value: &Value<'_>) -> Result<f64, String> {
    let number = value.float()?;
    if !number.is_finite() {
        return Err(format!("must be finite, not {number}"));
    }
    Ok(number)
}

/// A share such as `"2%"`, as the number before the sign.
pub fn percent(value: &Value<'_>) -> Result<f64, String> {
    let number = value.string().ok().and_then(|text| text.strip_suffix('%'));
    let number = number.and_then(|number| number.trim().parse().ok());
    number
        .filter(|number| (0.0..=100.0).contains(number))
        .ok_or_else(|| "must be a share in quotes with its sign, such as \"2%\"".to_owned())
}

impl Value<'_> {
    pub fn float(&self) -> Result<f64, String> {
        match self.0 {
            DeValue::Float(number) => number
                .as_str()
                .parse::<f64>()
                .map_err(|_| format!("{number} is not a number")),
            #[expect(
                clippy::cast_precision_loss,
                reason = "a setting of 2^53 is a typing error"
            )]
            DeValue::Integer(_) => Ok(self.integer()? as f64),
            other => Err(format!("must be a number, not {}", kind(other))),
        }
    }
}
