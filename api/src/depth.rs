//! How deep a document nests, found out before it is parsed: parsers take time that grows with the square of it.
//! It owns that one limit, and looks at characters only.

/// The deepest nesting that is read. A configuration nests four deep.
const DEPTH_MOST: usize = 64;

/// The line on which a document nests too deep, if it does. Brackets in quotes count as well: sixty-four of them are
/// no part of any field.
pub(crate) fn too_deep(yaml: &str) -> Option<(usize, String)> {
    let mut brackets = 0_usize;
    for (index, line) in yaml.lines().enumerate() {
        for byte in line.bytes() {
            match byte {
                b'[' | b'{' => brackets += 1,
                b']' | b'}' => brackets = brackets.saturating_sub(1),
                _ => {}
            }
            if brackets > DEPTH_MOST {
                return Some((index + 1, sentence("brackets")));
            }
        }
        let indent = line.len() - line.trim_start_matches([' ', '-', '?', ':']).len();
        if indent > 2 * DEPTH_MOST {
            return Some((index + 1, sentence("indentation")));
        }
    }
    None
}

fn sentence(by: &str) -> String {
    format!(
        "the document nests more than {DEPTH_MOST} deep, by its {by}: a configuration needs four"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_documents_are_told_without_parsing_them() {
        assert_eq!(too_deep("relays: [{name: web}]\nadmin: \"[::]:1\"\n"), None);
        let brackets = format!(
            "a: 1\nrelays: {}{}",
            "[".repeat(250_000),
            "]".repeat(250_000)
        );
        assert_eq!(too_deep(&brackets).map(|(line, _)| line), Some(2));
        let dashes = "- ".repeat(100_000);
        assert!(too_deep(&dashes).is_some());
        let indented: String = (0..300)
            .map(|depth| format!("{}a:\n", " ".repeat(depth)))
            .collect();
        assert!(too_deep(&indented).is_some());
    }
}
