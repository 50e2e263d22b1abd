package strictjson

// pass goes over the value at hand, checks its form, and returns how deep it nests (0 for what is no compound) and how
// many bytes of white space lie between its tokens. It does not recurse, so that no document can exhaust a stack.
func (r *Reader) pass() (deepest, spaces int) {
	depth := 0
	for r.bad == nil {
		if c := r.peek(); c == '{' || c == '[' {
			r.pos++
			spaces += r.counted()
			deepest = max(deepest, depth+1)
			if r.peek() != c+2 { // in ASCII the closing ones lie two after the opening ones
				r.open(depth, c == '{')
				depth++
				if c == '{' {
					spaces += r.member()
				}
				continue
			}
			r.pos++
		} else {
			r.scalar(c)
		}
		// A value is complete. Close what ends with it, then go on to the next one.
		for more := false; !more; {
			if depth == 0 || r.bad != nil {
				return deepest, spaces
			}
			spaces += r.counted()
			object := r.inObject(depth - 1)
			switch c := r.peek(); {
			case c == ',':
				r.pos++
				spaces += r.counted()
				if object {
					spaces += r.member()
				}
				more = true
			case c == '}' && object, c == ']' && !object:
				r.pos++
				depth--
			default:
				r.fail("a comma or the end of an object or array is needed")
			}
		}
	}
	return 0, 0
}

func (r *Reader) scalar(c byte) {
	switch {
	case c == '"':
		r.quoted()
	case c == '-' || c >= '0' && c <= '9':
		r.number()
	case c == 't':
		r.literal("true")
	case c == 'f':
		r.literal("false")
	case c == 'n':
		r.literal("null")
	default:
		r.fail("a value is needed")
	}
}

func (r *Reader) open(level int, object bool) {
	for len(r.nest) <= level/64 {
		r.nest = append(r.nest, 0)
	}
	bit := uint64(1) << (level % 64)
	if object {
		r.nest[level/64] |= bit
	} else {
		r.nest[level/64] &^= bit
	}
}

func (r *Reader) inObject(level int) bool { return r.nest[level/64]&(1<<(level%64)) != 0 }

// counted passes over white space and returns how much there was.
func (r *Reader) counted() int {
	from := r.pos
	r.space()
	return r.pos - from
}

// member reads a name and its colon and returns how much white space there was.
func (r *Reader) member() int {
	if r.peek() != '"' {
		r.fail("the name of a member is needed")
		return 0
	}
	r.quoted()
	n := r.counted()
	if r.bad == nil && r.peek() != ':' {
		r.fail("a colon is needed")
		return 0
	}
	r.pos++
	return n + r.counted()
}

func (r *Reader) literal(word string) {
	if len(r.data)-r.pos < len(word) || string(r.data[r.pos:r.pos+len(word)]) != word {
		r.fail("a value is needed")
		return
	}
	r.pos += len(word)
}

// number reads a number and reports whether it is written with neither fraction nor exponent.
func (r *Reader) number() (plain bool) {
	plain = true
	if r.peek() == '-' {
		r.pos++
	}
	if r.peek() == '0' {
		r.pos++
	} else if !r.digits() {
		return false
	}
	if r.peek() == '.' {
		plain = false
		r.pos++
		if !r.digits() {
			return false
		}
	}
	if c := r.peek(); c == 'e' || c == 'E' {
		plain = false
		r.pos++
		if c := r.peek(); c == '+' || c == '-' {
			r.pos++
		}
		if !r.digits() {
			return false
		}
	}
	return plain
}

// digits reads at least one.
func (r *Reader) digits() bool {
	from := r.pos
	for r.pos < len(r.data) && r.data[r.pos] >= '0' && r.data[r.pos] <= '9' {
		r.pos++
	}
	if r.pos == from {
		r.fail("a digit is needed")
	}
	return r.pos > from
}

// quoted reads a string and returns it with its quotes as it stands there.
func (r *Reader) quoted() (raw []byte, escaped bool) {
	start := r.pos
	data := r.data
	for i := start + 1; i < len(data); i++ {
		c := data[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		switch c {
		case '"':
			r.pos = i + 1
			return data[start:r.pos], escaped
		case '\\':
			escaped = true
			n := escapeLength(data[i:])
			if n == 0 {
				r.pos = i
				r.fail("an escape that there is not")
				return nil, false
			}
			i += n - 1
		default:
			r.pos = i
			r.fail("a control character in a string has to be escaped")
			return nil, false
		}
	}
	r.pos = len(r.data)
	r.fail("a string has no end")
	return nil, false
}

// escapeLength returns the length of the escape that b begins with, 0 if it is none.
func escapeLength(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	if b[1] != 'u' {
		if unescape[b[1]] == 0 {
			return 0
		}
		return 2
	}
	if len(b) < 6 {
		return 0
	}
	for _, c := range b[2:6] {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return 0
		}
	}
	return 6
}
