package wire

import "carillon/server/push"

// The codes of the errors that [DecodeClient] and [DecodeServer] return. They are part of the wire contract: a server
// sends them in error frames, and api/testdata/invalid.json lists inputs for each.
const (
	CodeMalformed  = "malformed_frame"  // not JSON, not one object, no type, a type twice, cut off, not UTF-8
	CodeUnknown    = "unknown_frame"    // well formed, of a type that this version does not know
	CodeUnexpected = "unexpected_frame" // of a type that only the other side sends
	CodeMissing    = "missing_field"    // without a field that its type needs
	CodeInvalid    = "invalid_field"    // a field of the wrong kind, out of range, or there twice
	CodeTooLong    = "field_too_long"   // a field beyond its limit
)

// Limits of fields that a client sends, in bytes after unescaping.
const (
	MaxToken  = 4096
	MaxClient = 64
)

// Limits of nesting. A body may nest as deep as encoding/json lets it, by which it was compacted; what a decoder only
// passes over may not, since it comes from strangers.
const (
	MaxBodyDepth   = 10000
	maxPassedDepth = 64
)

// maxNumber is the largest number that a JSON frame carries: above it, doubles lose digits.
const maxNumber = 1<<53 - 1

// fail returns the error of a decoder. The detail names fields of ours and never anything that the peer sent.
func fail(code, detail string) error {
	return &push.Error{Kind: push.KindInvalid, Code: code, Detail: detail}
}
