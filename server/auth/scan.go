package auth

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// scanner cuts JSON into its values without looking at what they are. It is given text that is known to be valid JSON,
// and is there because encoding/json, for all its care, takes "SUB" for "sub" and the last of two equal names, and takes
// three times as long over a token's claims. Of text that is not valid it makes no sense, but it stays inside it.
type scanner struct {
	b  []byte
	at int
}

// members calls f with the name, as written between its quotes, and the value of each member of an object; ok is false
// if the text is no object. It stops at the first refusal and returns it.
func members(b []byte, f func(name, value []byte) *Refusal) (r *Refusal, ok bool) {
	s := scanner{b: b}
	if !s.take('{') {
		return nil, false
	}
	for !s.take('}') {
		name := s.value()
		if len(name) < 2 || !s.take(':') {
			return nil, false
		}
		if r := f(name[1:len(name)-1], s.value()); r != nil {
			return r, true
		}
		s.take(',')
	}
	return nil, true
}

// elements calls f with each element of a list; it returns f's first error, or one if the text is no list.
func elements(b []byte, f func(value []byte) error) error {
	s := scanner{b: b}
	if !s.take('[') {
		return fmt.Errorf("is a list")
	}
	for !s.take(']') {
		v := s.value()
		if len(v) == 0 {
			return fmt.Errorf("is a list")
		}
		if err := f(v); err != nil {
			return err
		}
		s.take(',')
	}
	return nil
}

func (s *scanner) space() {
	for s.at < len(s.b) && bytes.IndexByte([]byte(" \t\r\n"), s.b[s.at]) >= 0 {
		s.at++
	}
}

// take passes over c if it comes next, and reports whether it did.
func (s *scanner) take(c byte) bool {
	s.space()
	if s.at < len(s.b) && s.b[s.at] == c {
		s.at++
		return true
	}
	return false
}

// value returns the text of the value that comes next; empty if none does.
func (s *scanner) value() []byte {
	s.space()
	from, depth := s.at, 0
	for s.at < len(s.b) {
		switch c := s.b[s.at]; c {
		case '"':
			s.text()
			if depth == 0 {
				return s.b[from:s.at]
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return s.b[from:s.at] // the end of what holds a number or a word
			}
			if depth--; depth == 0 {
				s.at++
				return s.b[from:s.at]
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return s.b[from:s.at]
			}
		}
		s.at++
	}
	return s.b[from:s.at]
}

// text passes over a text that begins here.
func (s *scanner) text() {
	for s.at++; s.at < len(s.b); s.at++ {
		switch s.b[s.at] {
		case '\\':
			s.at++
		case '"':
			s.at++
			return
		}
	}
	s.at = len(s.b)
}

// unquote returns the text that stands between two quotes.
func unquote(inner []byte) (string, bool) {
	if bytes.IndexByte(inner, '\\') < 0 {
		return string(inner), true
	}
	var s string
	quoted := append(append([]byte{'"'}, inner...), '"')
	err := json.Unmarshal(quoted, &s)
	return s, err == nil
}
