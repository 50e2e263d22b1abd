package center

import (
	"bytes"
	"errors"
	"slices"
	"strings"

	"carillon/server/push"
)

// template is a JSON body with places for what is told of each user. A place stands in a text: outside of texts no JSON has two braces that open
// one behind the other.
type template struct {
	texts  [][]byte // between the places, one more than those; as they stand in the body
	places []place
}

// place is {{name}} or {{name|other}}.
type place struct {
	name  string
	other []byte // in place of an empty value, as it stands in the body
	value int    // which of the values of a user it is; -1: the user's name
}

// maxPlaces bounds the places of a template.
const maxPlaces = 100

// parseTemplate finds the places in a JSON body.
func parseTemplate(body []byte) (*template, error) {
	t := &template{}
	for {
		at := bytes.Index(body, []byte("{{"))
		if at < 0 {
			t.texts = append(t.texts, body)
			return t, nil
		}
		t.texts = append(t.texts, body[:at])
		inside, rest, closed := bytes.Cut(body[at+2:], []byte("}}"))
		if !closed || bytes.ContainsAny(inside, "\"{") {
			return nil, errors.New("{{ without }} in the same text")
		}
		name, other, _ := bytes.Cut(inside, []byte("|"))
		p := place{name: string(bytes.TrimSpace(name)), other: other}
		if !isVariable(p.name) {
			return nil, errors.New("the name of a variable has 1 to 64 of letters, digits, '_', '-' and '.'")
		}
		if t.places = append(t.places, p); len(t.places) > maxPlaces {
			return nil, errors.New("too many places for variables")
		}
		body = rest
	}
}

// isVariable reports whether a variable may be called that.
func isVariable(name string) bool {
	return name != "" && len(name) <= 64 && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-' && r != '.'
	})
}

// userVariable is the variable that each user has.
const userVariable = "user"

// bind says which variables there are. It returns the name of one that is not among them, empty if all are.
func (t *template) bind(variables []string) (unknown string) {
	for i := range t.places {
		p := &t.places[i]
		p.value = slices.Index(variables, p.name)
		if p.value < 0 && p.name != userVariable {
			return p.name
		}
	}
	return ""
}

// longest returns how many bytes the body has at most, by how long each value is at most as it is written in JSON.
func (t *template) longest(values []int) (n int) {
	for _, text := range t.texts {
		n += len(text)
	}
	for _, p := range t.places {
		most := 6 * push.MaxUserID
		if p.value >= 0 {
			most = values[p.value]
		}
		n += max(most, len(p.other))
	}
	return n
}

// fill returns the body for a user.
func (t *template) fill(user push.UserID, values []string) []byte {
	n := len(t.texts[0])
	for i := range t.places {
		n += len(t.texts[i+1]) + 16
	}
	body := append(make([]byte, 0, n), t.texts[0]...)
	for i, p := range t.places {
		v := ""
		switch {
		case p.value < 0:
			v = string(user)
		case p.value < len(values):
			v = values[p.value]
		}
		if v == "" {
			body = append(body, p.other...)
		} else {
			q := appendString(nil, v)
			body = append(body, q[1:len(q)-1]...)
		}
		body = append(body, t.texts[i+1]...)
	}
	return body
}

// written returns how many bytes a text has as it is written in JSON, without its quotes.
func written(s string) int { return len(appendString(nil, s)) - 2 }
