package strictjson

import "fmt"

// Shape is the members that an object may have, at most 64.
type Shape struct {
	names    []string
	required Set
}

// Set is a set of a shape's members, by index.
type Set uint64

// Has reports whether the member is in the set.
func (s Set) Has(i int) bool { return s&(1<<i) != 0 }

// With returns the set with the member in it.
func (s Set) With(i int) Set { return s | 1<<i }

// Count returns how many members are in the set.
func (s Set) Count() int {
	n := 0
	for ; s != 0; s &= s - 1 {
		n++
	}
	return n
}

// NewShape returns a shape of those members; those named first, as many as required says, must be there.
func NewShape(required int, names ...string) *Shape {
	return &Shape{names: names, required: 1<<required - 1}
}

func (s *Shape) index(name string) int {
	for i, n := range s.names {
		if n == name {
			return i
		}
	}
	return -1
}

// Object reads an object. It calls member in front of the value of each known member, at most once for each, with the
// member's index in the shape. Members that are unknown, stand twice or are missing are noted. ok is false if the value is
// no object.
func (r *Reader) Object(s *Shape, member func(i int)) (seen Set, ok bool) {
	if !r.expect(Object, "an object is needed") {
		return 0, false
	}
	r.pos++
	r.space()
	for more := r.first('}'); more; more = r.next('}') {
		raw, escaped := r.name()
		if r.bad != nil {
			return 0, false
		}
		i := -1
		if escaped {
			name, _ := unquote(raw)
			i = s.index(name)
		} else {
			i = s.indexRaw(raw[1 : len(raw)-1])
		}
		switch {
		case i < 0:
			r.noteMember(raw, UnknownMember, "there is no such member")
			r.Skip()
		case seen.Has(i):
			r.Note(DuplicateMember, "a member stands once", s.names[i])
			r.Skip()
		default:
			seen = seen.With(i)
			r.path = append(r.path, step{name: s.names[i], named: true})
			member(i)
			r.path = r.path[:len(r.path)-1]
		}
	}
	if r.bad != nil {
		return 0, false
	}
	if missing := s.required &^ seen; missing != 0 {
		for i, n := range s.names {
			if missing.Has(i) {
				r.Note(Required, "the member is missing", n)
			}
		}
	}
	return seen, true
}

func (s *Shape) indexRaw(name []byte) int {
	for i, n := range s.names {
		if n == string(name) {
			return i
		}
	}
	return -1
}

// noteMember notes a mistake in a member that is named by the sender.
func (r *Reader) noteMember(raw []byte, c Code, detail string) {
	name, _ := unquote(raw)
	if len(name) > maxNameShown {
		r.Note(c, detail)
		return
	}
	r.Note(c, detail, name)
}

// Members reads an object whose member names the sender chooses, at most most of them. It calls member in front of each
// value with the name; a name that is half a surrogate pair somewhere is noted and its value passed over. It does not look
// for names that stand twice.
func (r *Reader) Members(most int, member func(name string)) (n int, ok bool) {
	if !r.expect(Object, "an object is needed") {
		return 0, false
	}
	r.pos++
	r.space()
	for more := r.first('}'); more; more = r.next('}') {
		raw, _ := r.name()
		if r.bad != nil {
			return 0, false
		}
		n++
		name, good := unquote(raw)
		switch {
		case n > most:
			if n == most+1 {
				r.Note(TooMany, fmt.Sprintf("at most %d members", most))
			}
			r.Skip()
		case !good:
			r.Note(BadText, "a member's name is half a surrogate pair somewhere")
			r.Skip()
		default:
			shown := name
			if len(shown) > maxNameShown {
				shown = ""
			}
			r.path = append(r.path, step{name: shown, named: true})
			member(name)
			r.path = r.path[:len(r.path)-1]
		}
	}
	return n, r.bad == nil && n <= most
}

// Array reads an array of least to most items. It calls item in front of each; what is beyond most is passed over.
func (r *Reader) Array(least, most int, item func(i int)) (n int, ok bool) {
	if !r.expect(Array, "an array is needed") {
		return 0, false
	}
	r.pos++
	r.space()
	for more := r.first(']'); more; more = r.next(']') {
		n++
		if n > most {
			r.Skip()
			continue
		}
		r.path = append(r.path, step{index: n - 1})
		item(n - 1)
		r.path = r.path[:len(r.path)-1]
	}
	switch {
	case r.bad != nil:
		return 0, false
	case n > most:
		r.Note(TooMany, fmt.Sprintf("at most %d items", most))
		return n, false
	case n < least:
		r.Note(TooFew, fmt.Sprintf("at least %d items", least))
		return n, false
	}
	return n, true
}

// first reports whether a compound value, whose opening was read, has a first element.
func (r *Reader) first(end byte) bool {
	if r.peek() == end {
		r.pos++
		r.space()
		return false
	}
	return r.bad == nil
}

// next goes past the comma to the next element, or past the end.
func (r *Reader) next(end byte) bool {
	if r.bad != nil {
		return false
	}
	switch r.peek() {
	case ',':
		r.pos++
		r.space()
		return true
	case end:
		r.pos++
		r.space()
		return false
	}
	r.fail("a comma or the end of an object or array is needed")
	return false
}

// name reads a member's name and the colon behind it. raw includes the quotes.
func (r *Reader) name() (raw []byte, escaped bool) {
	if r.peek() != '"' {
		r.fail("the name of a member is needed")
		return nil, false
	}
	raw, escaped = r.quoted()
	if r.bad != nil {
		return nil, false
	}
	r.space()
	if r.peek() != ':' {
		r.fail("a colon is needed")
		return nil, false
	}
	r.pos++
	r.space()
	return raw, escaped
}

// Name returns the name of a member.
func (s *Shape) Name(i int) string { return s.names[i] }
