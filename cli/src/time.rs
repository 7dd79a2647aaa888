//! Times as people write and read them: "in 10m", "3m ago".

use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use std::time::Duration;

/// How far a time is from `now`, in its largest unit: "3m ago", "in 2h", "now".
pub(crate) fn relative(time: Timestamp, now: Timestamp) -> String {
    let distance = time.duration_since(now).round(jiff::Unit::Second).unwrap_or(SignedDuration::MAX);
    if distance.is_zero() {
        "now".to_owned()
    } else if distance.is_negative() {
        format!("{} ago", short(distance.unsigned_abs()))
    } else {
        format!("in {}", short(distance.unsigned_abs()))
    }
}

/// How far a time is from now.
pub(crate) fn since(time: Timestamp) -> String {
    relative(time, Timestamp::now())
}

/// A duration in its largest unit: "250ms", "45s", "3m", "2h", "5d". Cut off, not rounded.
pub(crate) fn short(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{}ms", duration.as_millis()),
        seconds @ 1..60 => format!("{seconds}s"),
        seconds @ 60..3_600 => format!("{}m", seconds / 60),
        seconds @ 3_600..86_400 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// How long something took, to the tenth of a second while that matters: "1.4s", "3m 20s".
pub(crate) fn took(duration: Duration) -> String {
    match duration.as_secs() {
        0 => short(duration),
        1..60 => format!("{:.1}s", duration.as_secs_f64()),
        seconds @ 60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        seconds => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// Reads a duration: "10m", "1h 30m", "2 days", "PT90S"; a bare number is seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    let length = text
        .parse::<Span>()
        .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
        .map_err(|_| format!("{text:?} is not a duration such as 30s, 10m, 1h30m or 2d"))?;
    Duration::try_from(length).map_err(|_| format!("{text:?} is negative"))
}

/// Reads a duration in whole seconds, as the API takes them.
pub(crate) fn parse_seconds(text: &str) -> Result<i32, String> {
    let duration = parse_duration(text)?;
    i32::try_from(duration.as_secs()).map_err(|_| format!("{text:?} is too long"))
}

/// Reads a time to come: RFC 3339, or how far ahead of this machine's clock.
pub(crate) fn parse_future(text: &str) -> Result<Timestamp, String> {
    parse_time(text, 1)
}

/// Reads a time gone by: RFC 3339, or how long ago by this machine's clock.
pub(crate) fn parse_past(text: &str) -> Result<Timestamp, String> {
    parse_time(text, -1)
}

fn parse_time(text: &str, sign: i32) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let distance = parse_duration(text).map_err(|_| {
        format!("{text:?} is neither RFC 3339 (2026-01-31T12:00:00Z) nor a duration such as 10m")
    })?;
    SignedDuration::try_from(distance)
        .ok()
        .and_then(|distance| Timestamp::now().checked_add(distance * sign).ok())
        .ok_or_else(|| format!("{text:?} is too far away"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_time_is_told_in_its_largest_unit() {
        let now = at("2026-01-31T12:00:00Z");
        let told = |text: &str| relative(at(text), now);
        assert_eq!(told("2026-01-31T12:00:00.4Z"), "now");
        assert_eq!(told("2026-01-31T11:59:15Z"), "45s ago");
        assert_eq!(told("2026-01-31T11:56:30Z"), "3m ago");
        assert_eq!(told("2026-01-31T14:30:00Z"), "in 2h");
        assert_eq!(told("2026-01-31T12:09:59.9Z"), "in 10m");
        assert_eq!(told("2026-01-01T12:00:00Z"), "30d ago");
    }

    #[test]
    fn durations_are_read_in_many_ways() {
        let seconds = |text: &str| parse_duration(text).unwrap().as_secs();
        assert_eq!(seconds("90"), 90);
        assert_eq!(seconds("10m"), 600);
        assert_eq!(seconds("1h 30m"), 5_400);
        assert_eq!(seconds("2d"), 172_800);
        assert_eq!(seconds("PT5M"), 300);
        for text in ["", "soon", "-5m", "10 m ago", "1y"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_schedule_is_a_time_or_a_distance() {
        assert_eq!(parse_future("2030-01-01T00:00:00+01:00").unwrap(), at("2029-12-31T23:00:00Z"));
        assert!(parse_future("10m").unwrap() > Timestamp::now());
        assert!(parse_past("10m").unwrap() < Timestamp::now());
        assert!(parse_future("99999999 days").is_err());
        assert!(parse_future("tomorrow").is_err());
    }
}
