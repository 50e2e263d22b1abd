// Package strictjson reads JSON requests in one pass, without reflection, and says exactly what is wrong with them.
//
// It is stricter than encoding/json: a member that is unknown or stands twice, text that is not UTF-8, half a surrogate
// pair and anything after the document are mistakes. Mistakes of form end the reading ([SyntaxError]); mistakes of content
// are collected, each with a JSON pointer and a [Code], while the reading goes on, so that a caller can be told of
// several at once. Neither ever holds a value that the sender wrote.
//
// # Use
//
// A [Reader] stands in front of a value. Each reading method consumes exactly that value, whatever it is. Object and
// Array call back in front of each of their values, and the callback must consume it the same way:
//
//	r := strictjson.NewReader(data)
//	r.Object(shape, func(i int) {
//		switch i {
//		case nameMember:
//			name, _ = r.Text(nameRule)
//		}
//	})
//	if err := r.End(); err != nil { … }
//	if errs := r.Errors(); len(errs) > 0 { … }
//
// After a mistake of form every method returns zero values without reading on, so that callers need to look once, at the
// end. Results never share memory with the document.
package strictjson

import (
	"fmt"
	"strconv"
	"unicode/utf8"
)

// MaxErrors is how many mistakes of content are kept; further ones are not noted.
const MaxErrors = 16

// Reader reads one document. It is not safe for concurrent use.
type Reader struct {
	data []byte
	pos  int
	bad  *SyntaxError

	path  []step
	nest  []uint64 // scratch of pass: one bit a level, set in an object
	errs  []FieldError
	limit int // of errs, absolute
}

// step is one part of the path to the value that is being read.
type step struct {
	name  string
	index int // if name is empty and named is not set
	named bool
}

// SyntaxError says that the document is not one JSON value in UTF-8. The text names what is wrong and never quotes.
type SyntaxError struct {
	Offset int // in bytes
	What   string
}

// Error returns offset and mistake.
func (e *SyntaxError) Error() string { return fmt.Sprintf("at byte %d: %s", e.Offset, e.What) }

// NewReader returns a reader in front of the document's only value. The reader keeps data until it is done with.
func NewReader(data []byte) *Reader {
	r := &Reader{data: data, limit: MaxErrors, path: make([]step, 0, 8)}
	if !utf8.Valid(data) {
		r.bad = &SyntaxError{invalidAt(data), "not valid UTF-8"}
		return r
	}
	r.space()
	return r
}

func invalidAt(b []byte) int {
	at := 0
	for at < len(b) {
		c, n := utf8.DecodeRune(b[at:])
		if c == utf8.RuneError && n == 1 {
			break
		}
		at += n
	}
	return at
}

// End checks that nothing follows the value and returns the mistake of form, if there was one.
func (r *Reader) End() error {
	if r.bad == nil && r.pos < len(r.data) {
		r.fail("something follows the document")
	}
	if r.bad != nil {
		return r.bad
	}
	return nil
}

// Errors returns the mistakes of content found so far.
func (r *Reader) Errors() []FieldError { return r.errs }

// Mark begins a part of the document that is judged by itself. Since returns the mistakes noted in it and forgets them.
func (r *Reader) Mark() (mark int) {
	r.limit = len(r.errs) + MaxErrors
	return len(r.errs)
}

// Since ends the part that began at the mark.
func (r *Reader) Since(mark int) []FieldError {
	if len(r.errs) == mark {
		return nil
	}
	errs := append([]FieldError(nil), r.errs[mark:]...)
	r.errs = r.errs[:mark]
	r.limit = mark + MaxErrors
	return errs
}

// Note notes a mistake in the value at hand, or in the member or item of it that the pointer parts lead to.
func (r *Reader) Note(c Code, detail string, members ...string) {
	if r.bad != nil || len(r.errs) >= r.limit {
		return
	}
	r.errs = append(r.errs, FieldError{Pointer: r.pointer(members), Code: c, Detail: detail})
}

// NoteItem notes a mistake in the item of that index of the array at hand, or in a member of it.
func (r *Reader) NoteItem(i int, c Code, detail string) {
	r.path = append(r.path, step{index: i})
	r.Note(c, detail)
	r.path = r.path[:len(r.path)-1]
}

// maxNameShown bounds the bytes of a member name that a pointer repeats.
const maxNameShown = 64

func (r *Reader) pointer(members []string) string {
	var b []byte
	for _, s := range r.path {
		b = append(b, '/')
		if s.named {
			b = appendToken(b, s.name)
		} else {
			b = strconv.AppendInt(b, int64(s.index), 10)
		}
	}
	for _, m := range members {
		b = appendToken(append(b, '/'), m)
	}
	return string(b)
}

// appendToken appends a reference token of RFC 6901.
func appendToken(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '~':
			b = append(b, "~0"...)
		case '/':
			b = append(b, "~1"...)
		default:
			b = append(b, s[i])
		}
	}
	return b
}

func (r *Reader) fail(what string) {
	if r.bad == nil {
		r.bad = &SyntaxError{r.pos, what}
	}
	r.pos = len(r.data)
}

func (r *Reader) space() {
	for r.pos < len(r.data) {
		switch r.data[r.pos] {
		case ' ', '\t', '\r', '\n':
			r.pos++
		default:
			return
		}
	}
}

// peek returns the next byte, 0 at the end.
func (r *Reader) peek() byte {
	if r.pos < len(r.data) {
		return r.data[r.pos]
	}
	return 0
}

// Type is the kind of a JSON value.
type Type byte

// The types.
const (
	Invalid Type = iota
	Object
	Array
	String
	Number
	Bool
	Null
)

// Type returns the kind of the value at hand, by its first byte.
func (r *Reader) Type() Type {
	switch c := r.peek(); {
	case c == '{':
		return Object
	case c == '[':
		return Array
	case c == '"':
		return String
	case c == '-' || c >= '0' && c <= '9':
		return Number
	case c == 't' || c == 'f':
		return Bool
	case c == 'n':
		return Null
	}
	return Invalid
}

// expect reports whether the value at hand is of that type. If not, it notes so and passes over the value.
func (r *Reader) expect(t Type, detail string) bool {
	if r.bad != nil {
		return false
	}
	if r.Type() == t {
		return true
	}
	r.Note(WrongType, detail)
	r.Skip()
	return false
}
