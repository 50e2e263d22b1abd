package redisdb

import (
	"strconv"

	"carillon/server/push"
)

// Replies come as the bytes that Redis sent (RESP2). The lane that received them finds out where each unit's answer begins and ends, and the
// caller takes its own apart.

var errReply = push.Errorf(push.KindInternal, "store_reply", "a function of ours answered something else than it does")

// maxDepth is how deep lists in a reply lie in each other.
const maxDepth = 16

// line returns the line at s[i], without its kind, and where the next one begins; an empty kind if there is none.
func line[S string | []byte](s S, i int) (kind byte, text S, next int) {
	for j := i; j+1 < len(s); j++ {
		if s[j] == '\r' && s[j+1] == '\n' {
			if j == i {
				return 0, s[:0], 0
			}
			return s[i], s[i+1 : j], j + 2
		}
	}
	return 0, s[:0], 0
}

// number returns the number that a line is, -1 for what is none or too long to be meant.
func number[S string | []byte](text S) int {
	if len(text) == 0 || len(text) > 9 {
		return -1
	}
	n := 0
	for i := range len(text) {
		c := text[i]
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// skip returns where the value at s[i] ends, 0 if there is no whole value.
func skip[S string | []byte](s S, i, depth int) int {
	kind, text, at := line(s, i)
	switch kind {
	case '+', '-', ':':
		return at
	case '$':
		if len(text) == 2 && text[0] == '-' {
			return at
		}
		n := number(text)
		if n < 0 || at+n+2 > len(s) {
			return 0
		}
		return at + n + 2
	case '*':
		if len(text) == 2 && text[0] == '-' {
			return at
		}
		n := number(text)
		if n < 0 || depth == maxDepth {
			return 0
		}
		for range n {
			if at = skip(s, at, depth+1); at == 0 {
				return 0
			}
		}
		return at
	}
	return 0
}

// splitCall takes apart what a function answered: who and when, and each unit's answer.
func splitCall(raw []byte, units []*unit) (a Answer, ok bool) {
	kind, text, at := line(raw, 0)
	if kind != '*' || number(text) != 3 {
		return a, false
	}
	digits, at, ok := bulk(raw, at)
	if !ok {
		return a, false
	}
	lineage, err := strconv.ParseUint(digits, 16, 63)
	if err != nil || len(digits) != 15 {
		return a, false
	}
	millis, at, ok := bulk(raw, at)
	if !ok {
		return a, false
	}
	now, err := strconv.ParseInt(millis, 10, 64)
	if err != nil {
		return a, false
	}
	kind, text, at = line(raw, at)
	if kind != '*' || number(text) != len(units) {
		return a, false
	}
	a = Answer{Lineage: push.Lineage(max(lineage, 1)), Now: push.MilliTime(now)}
	for _, u := range units {
		end := skip(raw, at, 0)
		if end == 0 {
			return a, false
		}
		u.answer = a
		u.raw = string(raw[at:end]) // of its own, so that who keeps a reply does not keep those of others
		at = end
	}
	return a, at == len(raw)
}

// bulk returns the string at s[i] and where it ends.
func bulk(s []byte, i int) (string, int, bool) {
	kind, text, at := line(s, i)
	n := number(text)
	if kind != '$' || n < 0 || at+n+2 > len(s) {
		return "", 0, false
	}
	return string(s[at : at+n]), at + n + 2, true
}

// value returns the value at s[i] as callers see it, which skip has found whole, and where it ends.
func value(s string, i int) (any, int) {
	kind, text, at := line(s, i)
	switch kind {
	case '+':
		return text, at
	case ':':
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, at
		}
		return n, at
	case '$':
		n := number(text)
		if n < 0 {
			return nil, at
		}
		return s[at : at+n], at + n + 2
	case '*':
		n := number(text)
		if n < 0 {
			return nil, at
		}
		list := make([]any, n)
		for k := range list {
			list[k], at = value(s, at)
		}
		return list, at
	}
	return nil, at
}

// take gives a unit's caller its answer: replies to its commands if it was done, in the room that is there.
func (u *unit) take(room []any, do []Command) (replies []any, done bool, a Answer) {
	a = u.answer
	if a.Err != nil {
		return nil, false, Answer{Err: a.Err}
	}
	if u.texts {
		room = room[:0]
		for _, list := range u.lists {
			room = append(room, list)
		}
		return room, true, a
	}
	if u.plain != nil {
		return u.each(room, 0, do), true, a
	}
	if u.raw == "" {
		return nil, false, Answer{Err: errReply}
	}
	switch u.raw[0] {
	case ':':
		if u.raw == nothingToSay {
			return empty(room, len(do)), true, a
		}
		return nil, false, a
	case '$':
		text, _ := value(u.raw, 0)
		s, _ := text.(string)
		return nil, false, Answer{Err: refused(s)}
	}
	kind, text, at := line(u.raw, 0)
	if kind != '*' || number(text) != u.told(do) {
		return nil, false, Answer{Err: errReply}
	}
	return u.each(room, at, do), true, a
}

// nothingToSay is the answer to a unit that is done, and of which every reply is empty.
const nothingToSay = ":1\r\n"

// done reports whether what was answered says that the unit, a write, was done.
func (u *unit) done() bool { return u.raw == nothingToSay || u.raw != "" && u.raw[0] == '*' }

// told returns how many of the commands have replies.
func (u *unit) told(do []Command) (n int) {
	for i := range do {
		if do[i].tells(u.write) {
			n++
		}
	}
	return n
}

// each returns the values from raw[at] on, which skip has found whole, by the commands that asked for them.
func (u *unit) each(room []any, at int, do []Command) []any {
	room = empty(room, len(do))
	for i := range do {
		if do[i].tells(u.write) {
			room[i], at = value(u.raw, at)
		}
	}
	return room
}

// empty returns n empty replies, in the room that is there.
func empty(room []any, n int) []any {
	if cap(room) < n || room == nil {
		return make([]any, n)
	}
	room = room[:n]
	clear(room)
	return room
}
