//! The parameters of a case.

use serde_json::{Map, Value};

use crate::operators::Stop;

/// A JSON object. A key that is absent and one that is null mean the same: the default.
pub struct Params(Map<String, Value>);

impl Params {
    pub fn parse(text: &str) -> Result<Params, String> {
        match serde_json::from_str(text) {
            Ok(Value::Object(map)) => Ok(Params(map)),
            Ok(_) => Err(format!("params: is {text}, but must be a JSON object")),
            Err(e) => Err(format!("params: is no JSON ({e})")),
        }
    }

    /// Keys that ask for something: all but the null and the false ones.
    pub fn set(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().filter(|(_, value)| !value.is_null() && **value != Value::Bool(false)).map(|(k, v)| (&**k, v))
    }

    pub fn flag(&self, key: &str) -> Result<Option<bool>, Stop> {
        self.read(key, "true or false", Value::as_bool)
    }

    pub fn number(&self, key: &str) -> Result<Option<f32>, Stop> {
        Ok(self.number_f64(key)?.map(|number| number as f32))
    }

    pub fn number_f64(&self, key: &str) -> Result<Option<f64>, Stop> {
        self.read(key, "a number", Value::as_f64)
    }

    pub fn text(&self, key: &str) -> Result<Option<&str>, Stop> {
        self.read(key, "a string", Value::as_str)
    }

    pub fn shape(&self, key: &str) -> Result<Option<Vec<usize>>, Stop> {
        self.read(key, "a list of lengths", |value| value.as_array()?.iter().map(length).collect())
    }

    /// The value as it stands, if there is one.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    pub fn list(&self, key: &str) -> Result<Option<&[Value]>, Stop> {
        self.read(key, "a list", |value| value.as_array().map(Vec::as_slice))
    }

    pub fn shapes(&self, key: &str) -> Result<Option<Vec<Vec<usize>>>, Stop> {
        let lengths = |value: &Value| value.as_array()?.iter().map(length).collect();
        self.read(key, "a list of lists of lengths", |value| value.as_array()?.iter().map(lengths).collect())
    }

    pub fn flags(&self, key: &str) -> Result<Option<Vec<bool>>, Stop> {
        self.read(key, "a list of true and false", |value| value.as_array()?.iter().map(Value::as_bool).collect())
    }

    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>, Stop> {
        self.read(key, "a list of strings", |value| value.as_array()?.iter().map(Value::as_str).collect())
    }

    pub fn count(&self, key: &str) -> Result<Option<usize>, Stop> {
        self.read(key, "a count", length)
    }

    /// `[left, right]`; -1 and null leave a side open.
    pub fn window(&self, key: &str) -> Result<[Option<usize>; 2], Stop> {
        let side = |value: &Value| match value {
            Value::Null => Some(-1),
            value => value.as_i64(),
        };
        let sides = self.read(key, "[left, right]", |value| match &value.as_array()?[..] {
            [left, right] => Some([side(left)?, side(right)?]),
            _ => None,
        })?;
        let sides = sides.unwrap_or([-1, -1]);
        // A negative side is a band that leaves out the query's own position.
        if sides.iter().any(|&side| side < -1) {
            return Err(Stop::NotOffered(format!("{key}: is {sides:?}, but negative sides are not offered")));
        }
        Ok(sides.map(|side| usize::try_from(side).ok()))
    }

    /// Refuses a text parameter that is set to anything but the one value that is offered.
    pub fn only(&self, key: &str, offered: &str) -> Result<(), Stop> {
        match self.text(key)? {
            Some(text) if text != offered => {
                Err(Stop::NotOffered(format!("{key}: is {text:?}, but only {offered:?} is offered")))
            }
            _ => Ok(()),
        }
    }

    fn read<'a, T>(&'a self, key: &str, kind: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>, Stop> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => Err(Stop::Failed(format!("{key}: is {value}, but must be {kind}"))),
            },
        }
    }
}

fn length(value: &Value) -> Option<usize> {
    value.as_u64()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(text: &str) -> Params {
        Params::parse(text).unwrap()
    }

    #[test]
    fn windows_are_read() {
        assert_eq!(params("{}").window("w").unwrap(), [None, None]);
        assert_eq!(params(r#"{"w": null}"#).window("w").unwrap(), [None, None]);
        assert_eq!(params(r#"{"w": [3, -1]}"#).window("w").unwrap(), [Some(3), None]);
        assert_eq!(params(r#"{"w": [null, 0]}"#).window("w").unwrap(), [None, Some(0)]);
        assert!(matches!(params(r#"{"w": [-2, 5]}"#).window("w"), Err(Stop::NotOffered(_))));
        assert!(matches!(params(r#"{"w": 3}"#).window("w"), Err(Stop::Failed(_))));
    }

    #[test]
    fn lists_are_read() {
        let params =
            params(r#"{"docs": [[4, 2], []], "causal": [true, false], "columns": ["a", "b"], "mixed": [1, "a"]}"#);
        assert_eq!(params.shapes("docs").unwrap(), Some(vec![vec![4, 2], vec![]]));
        assert_eq!(params.flags("causal").unwrap(), Some(vec![true, false]));
        assert_eq!(params.texts("columns").unwrap(), Some(vec!["a", "b"]));
        assert!(params.shapes("mixed").is_err() && params.flags("mixed").is_err() && params.texts("mixed").is_err());
    }

    #[test]
    fn values_of_the_wrong_kind_are_errors() {
        let params = params(r#"{"causal": 1, "scale": "auto", "align": "top_left", "window": null}"#);
        assert!(matches!(params.flag("causal"), Err(Stop::Failed(_))));
        assert!(matches!(params.number("scale"), Err(Stop::Failed(_))));
        assert!(matches!(params.only("align", "bottom_right"), Err(Stop::NotOffered(_))));
        assert!(params.only("align", "top_left").is_ok() && params.only("absent", "x").is_ok());
        assert!(Params::parse("[1]").is_err() && Params::parse("{").is_err());
        assert_eq!(params.set().map(|(key, _)| key).collect::<Vec<_>>(), ["align", "causal", "scale"]);
    }
}
