//! JSON laid out over lines without being parsed, so that depth does not matter and numbers keep their digits.

/// Lays out valid JSON, two blanks a level; what stands within quotes stays as it is.
pub(super) fn lay_out(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    let mut rest = json.chars().peekable();
    while let Some(c) = rest.next() {
        if in_text {
            out.push(c);
            in_text = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            '{' | '[' => {
                out.push(c);
                while rest.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                match rest.next_if(|next| matches!(next, '}' | ']')) {
                    Some(end) => out.push(end),
                    None => {
                        depth += 1;
                        new_line(&mut out, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => {
                out.push(c);
                in_text = c == '"';
            }
        }
    }
    out
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

#[cfg(test)]
mod tests {
    use super::lay_out;

    #[test]
    fn a_document_is_laid_out_as_serde_does_it() {
        let json = r#"{"a":[1,{"b":"x: [,\" {\\"}],"c":{ },"d":[ ],"e":null}"#;
        let value: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(lay_out(json), serde_json::to_string_pretty(&value).unwrap());
    }

    #[test]
    fn digits_survive_and_layout_of_others_does_not() {
        assert_eq!(
            lay_out(" [ 1.10 ,\n\n 12345678901234567890123 ] "),
            "[\n  1.10,\n  12345678901234567890123\n]"
        );
    }
}
