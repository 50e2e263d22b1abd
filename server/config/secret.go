package config

import (
	"fmt"
	"io"
	"log/slog"
)

// hidden is what stands for a secret wherever one would be printed.
const hidden = "[hidden]"

// Secret is text that is never printed: not by fmt with any verb, not as JSON or YAML, not in a log. Only Reveal gives
// it away.
type Secret struct{ text string }

// NewSecret returns a secret of that text.
func NewSecret(text string) Secret { return Secret{text} }

// Reveal returns the text.
func (s Secret) Reveal() string { return s.text }

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return s.text == "" }

// String returns "[hidden]", or nothing if there is no secret.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return hidden
}

// Format writes what String returns, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText returns what String returns; encoding/json and YAML use it.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue returns what String returns.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
