package wire

import (
	"encoding/base64"
	"strconv"
	"unicode/utf8"

	"carillon/server/push"
)

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string, escaped as encoding/json does without HTML escaping: quotes, backslashes and
// control characters; U+2028 and U+2029, so that a frame is safe inside JavaScript; what is not UTF-8 becomes U+FFFD.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			dst = append(dst, s[from:i]...)
			dst = appendEscape(dst, c)
			i++
			from = i
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			dst = append(dst, s[from:i]...)
			dst = append(dst, `\ufffd`...)
			from = i + n
		case r == '\u2028' || r == '\u2029':
			dst = append(dst, s[from:i]...)
			dst = append(dst, `\u202`...)
			dst = append(dst, hexDigits[r&0xf])
			from = i + n
		}
		i += n
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"')
}

func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
}

// The append functions below take the member's name with the comma before and the colon behind it, as it is written:
// one copy a member. Those whose name begins with opt leave the member out where its value is empty or zero.

func optString(dst []byte, member, s string) []byte {
	if s == "" {
		return dst
	}
	dst = append(dst, member...)
	return appendString(dst, s)
}

// appendName appends one of the names of names.go, none of which needs an escape.
func appendName(dst []byte, member, name string) []byte {
	dst = append(dst, member...)
	dst = append(dst, '"')
	dst = append(dst, name...)
	return append(dst, '"')
}

func appendUint[T ~uint8 | ~uint16 | ~uint32 | ~uint64](dst []byte, member string, n T) []byte {
	dst = append(dst, member...)
	return strconv.AppendUint(dst, uint64(n), 10)
}

// appendQuoted is for numbers above 2^53, which JSON carries as strings.
func appendQuoted(dst []byte, member string, n uint64) []byte {
	dst = append(dst, member...)
	dst = append(dst, '"')
	dst = strconv.AppendUint(dst, n, 10)
	return append(dst, '"')
}

func appendTime(dst []byte, member string, t push.MilliTime) []byte {
	return appendUint(dst, member, uint64(max(t, 0)))
}

func optTime(dst []byte, member string, t push.MilliTime) []byte {
	if t <= 0 {
		return dst
	}
	return appendTime(dst, member, t)
}

// unquote returns the text of a JSON string that the scanner has passed over, quotes included. A surrogate without its
// other half becomes U+FFFD, as with encoding/json.
func unquote(raw []byte) string {
	raw = raw[1 : len(raw)-1]
	i := indexBackslash(raw)
	if i < 0 {
		return string(raw)
	}
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
			out = append(out, unescape(c))
			continue
		}
		r := hexRune(raw[i:])
		i += 4
		if r >= 0xd800 && r < 0xe000 {
			r, i = joinSurrogates(r, raw, i)
		}
		out = utf8.AppendRune(out, r)
	}
	return string(out)
}

// joinSurrogates completes the half r from an escape at raw[i:], if one stands there that does.
func joinSurrogates(r rune, raw []byte, i int) (rune, int) {
	if r < 0xdc00 && len(raw)-i >= 6 && raw[i] == '\\' && raw[i+1] == 'u' {
		if low := hexRune(raw[i+2:]); low >= 0xdc00 && low < 0xe000 {
			return 0x10000 + (r-0xd800)<<10 + (low - 0xdc00), i + 6
		}
	}
	return utf8.RuneError, i
}

func indexBackslash(b []byte) int {
	for i, c := range b {
		if c == '\\' {
			return i
		}
	}
	return -1
}

func unescape(c byte) byte {
	switch c {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return c // quote, backslash, slash
}

// hexRune reads four hexadecimal digits, which the scanner has checked.
func hexRune(b []byte) (r rune) {
	for _, c := range b[:4] {
		r = r<<4 | rune(hexValue(c))
	}
	return r
}

// hexValue returns the value of a hexadecimal digit, -1 if c is none.
func hexValue(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// parseDigits reads a decimal number without sign or leading zero that is at most most.
func parseDigits(b []byte, most uint64) (n uint64, ok bool) {
	if len(b) == 0 || len(b) > 20 || b[0] == '0' && len(b) > 1 {
		return 0, false
	}
	for _, c := range b {
		d := uint64(c - '0')
		if c < '0' || c > '9' || d > most || n > (most-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

// strictBase64 refuses a last character that hides bits. It passes over line breaks; its caller does not.
var strictBase64 = base64.StdEncoding.Strict()
