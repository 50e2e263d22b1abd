package strictjson

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"
)

// Rule is what a text must keep to.
type Rule struct {
	Least, Most int // bytes; Most 0 means no limit
	NoControl   bool
	NoC1        bool // with NoControl: neither U+0080 to U+009F
}

// Text reads a string.
func (r *Reader) Text(rule Rule) (s string, ok bool) {
	if !r.expect(String, "a string is needed") {
		return "", false
	}
	raw, escaped := r.quoted()
	if r.bad != nil {
		return "", false
	}
	r.space()
	if !escaped && rule.Most > 0 && len(raw)-2 > rule.Most {
		r.Note(TooLong, fmt.Sprintf("at most %d bytes", rule.Most))
		return "", false
	}
	if s, ok = unquote(raw); !ok {
		r.Note(BadText, "the text is half a surrogate pair somewhere")
		return "", false
	}
	return s, r.Check(s, rule)
}

// Check notes what is wrong with a text and reports whether it keeps to the rule.
func (r *Reader) Check(s string, rule Rule) bool {
	switch {
	case s == "" && rule.Least > 0:
		r.Note(Empty, "the text is empty")
		return false
	case len(s) < rule.Least:
		r.Note(TooFew, fmt.Sprintf("at least %d bytes", rule.Least))
		return false
	case rule.Most > 0 && len(s) > rule.Most:
		r.Note(TooLong, fmt.Sprintf("at most %d bytes", rule.Most))
		return false
	case rule.NoControl && hasControl(s, rule.NoC1):
		r.Note(ControlCharacter, "the text holds a control character")
		return false
	}
	return true
}

func hasControl(s string, c1 bool) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c < 0x20 || c == 0x7f {
			return true
		}
		if c1 && c == 0xc2 && i+1 < len(s) && s[i+1] < 0xa0 {
			return true // U+0080 to U+009F
		}
	}
	return false
}

// Word reads a string that is one of words and returns its index.
func (r *Reader) Word(words ...string) (i int, ok bool) {
	s, ok := r.Text(Rule{})
	if !ok {
		return -1, false
	}
	if i = slices.Index(words, s); i < 0 {
		r.Note(UnknownValue, "none of the words that may stand here")
	}
	return i, i >= 0
}

// strict refuses padding that hides bits. Line breaks, which it would pass over, are refused before it is asked.
var strict = base64.StdEncoding.Strict()

// Base64 reads a string of padded standard base64.
func (r *Reader) Base64() (b []byte, ok bool) {
	if !r.expect(String, "a string is needed") {
		return nil, false
	}
	raw, escaped := r.quoted()
	if r.bad != nil {
		return nil, false
	}
	r.space()
	text := raw[1 : len(raw)-1]
	if escaped {
		s, _ := unquote(raw)
		text = []byte(s)
	}
	if slices.Contains(text, '\n') || slices.Contains(text, '\r') {
		r.Note(BadBase64, "padded standard base64 is needed")
		return nil, false
	}
	b = make([]byte, strict.DecodedLen(len(text)))
	n, err := strict.Decode(b, text)
	if err != nil {
		r.Note(BadBase64, "padded standard base64 is needed")
		return nil, false
	}
	return b[:n], true
}

// Bool reads true or false.
func (r *Reader) Bool() (v, ok bool) {
	if !r.expect(Bool, "true or false is needed") {
		return false, false
	}
	v = r.data[r.pos] == 't'
	r.Skip()
	return v, r.bad == nil
}

// True reads true; false is noted.
func (r *Reader) True() bool {
	v, ok := r.Bool()
	if ok && !v {
		r.Note(UnknownValue, "only true may stand here")
	}
	return v && ok
}

// Null reads null, if the value at hand is that.
func (r *Reader) Null() bool {
	if r.bad != nil || r.Type() != Null {
		return false
	}
	r.Skip()
	return r.bad == nil
}

// Int reads a whole number from least to most, which both lie within 2^53. 1e3 and 5.0 are whole numbers.
func (r *Reader) Int(least, most int64) (n int64, ok bool) {
	if !r.expect(Number, "a whole number is needed") {
		return 0, false
	}
	start := r.pos
	plain := r.number()
	if r.bad != nil {
		return 0, false
	}
	text := r.data[start:r.pos]
	r.space()
	var err error
	if plain && len(text) < 16 {
		n, _ = strconv.ParseInt(string(text), 10, 64) // 15 digits fit
	} else {
		n, err = wholeFloat(text)
	}
	switch {
	case err == errFraction:
		r.Note(WrongType, "a whole number is needed")
	case n < least, err == errRange && text[0] == '-':
		r.Note(TooSmall, fmt.Sprintf("at least %d", least))
	case n > most, err == errRange:
		r.Note(TooLarge, fmt.Sprintf("at most %d", most))
	default:
		return n, true
	}
	return 0, false
}

var (
	errFraction = errors.New("not whole")
	errRange    = errors.New("out of range")
)

func wholeFloat(text []byte) (int64, error) {
	f, err := strconv.ParseFloat(string(text), 64)
	switch {
	case err != nil || math.Abs(f) >= 1<<53:
		return 0, errRange
	case f != math.Trunc(f):
		return 0, errFraction
	}
	return int64(f), nil
}

// Value reads any value that nests at most deep levels and returns its bytes without the white space between tokens.
func (r *Reader) Value(deep int) (compact []byte, ok bool) {
	if r.bad != nil {
		return nil, false
	}
	start := r.pos
	depth, spaces := r.pass()
	if r.bad != nil {
		return nil, false
	}
	raw := r.data[start:r.pos]
	r.space()
	if depth > deep {
		r.Note(TooDeep, fmt.Sprintf("nested at most %d deep", deep))
		return nil, false
	}
	compact = make([]byte, 0, len(raw)-spaces)
	if spaces == 0 {
		return append(compact, raw...), true
	}
	return appendCompact(compact, raw), true
}

// Skip passes over any value.
func (r *Reader) Skip() {
	if r.bad != nil {
		return
	}
	r.pass()
	r.space()
}

func appendCompact(dst, raw []byte) []byte {
	inside := false
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch {
		case inside:
			if c == '\\' {
				dst = append(dst, c)
				i++
				c = raw[i]
			} else if c == '"' {
				inside = false
			}
		case c == '"':
			inside = true
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			continue
		}
		dst = append(dst, c)
	}
	return dst
}

// unquote returns the text of a string with its quotes, which was read before; ok is false if there is half a surrogate
// pair in it.
func unquote(raw []byte) (s string, ok bool) {
	raw = raw[1 : len(raw)-1]
	i := slices.Index(raw, '\\')
	if i < 0 {
		return string(raw), true
	}
	ok = true
	out := append(make([]byte, 0, len(raw)), raw[:i]...)
	for i < len(raw) {
		c := raw[i]
		if c != '\\' {
			out = append(out, c)
			i++
			continue
		}
		c = raw[i+1]
		i += 2
		if c != 'u' {
			out = append(out, unescape[c])
			continue
		}
		u := hexRune(raw[i:])
		i += 4
		if u >= 0xd800 && u < 0xe000 {
			low := rune(0)
			if u < 0xdc00 && len(raw)-i >= 6 && raw[i] == '\\' && raw[i+1] == 'u' {
				low = hexRune(raw[i+2:])
			}
			if low >= 0xdc00 && low < 0xe000 {
				u = 0x10000 + (u-0xd800)<<10 + (low - 0xdc00)
				i += 6
			} else {
				ok, u = false, utf8.RuneError
			}
		}
		out = utf8.AppendRune(out, u)
	}
	return string(out), ok
}

var unescape = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

func hexRune(b []byte) (u rune) {
	for _, c := range b[:4] {
		switch {
		case c <= '9':
			c -= '0'
		case c <= 'F':
			c -= 'A' - 10
		default:
			c -= 'a' - 10
		}
		u = u<<4 | rune(c)
	}
	return u
}

// Number reads a number from least to most.
func (r *Reader) Number(least, most float64) (n float64, ok bool) {
	if !r.expect(Number, "a number is needed") {
		return 0, false
	}
	start := r.pos
	r.number()
	if r.bad != nil {
		return 0, false
	}
	n, err := strconv.ParseFloat(string(r.data[start:r.pos]), 64)
	r.space()
	switch {
	case n < least:
		r.Note(TooSmall, "at least "+strconv.FormatFloat(least, 'f', -1, 64))
	case n > most, err != nil:
		r.Note(TooLarge, "at most "+strconv.FormatFloat(most, 'f', -1, 64))
	default:
		return n, true
	}
	return 0, false
}

// Capture returns the bytes of the value that read reads, without the white space between tokens; nil if there was a mistake of form.
func (r *Reader) Capture(read func()) []byte {
	start := r.pos
	read()
	if r.bad != nil {
		return nil
	}
	return appendCompact(nil, r.data[start:r.pos])
}
