package center

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"carillon/server/push"
	"carillon/server/task"
	taskmemory "carillon/server/task/memory"
)

// users returns who is in a list that was uploaded, and what is told of them, shard by shard.
func (u *upload) users(t *testing.T) (out map[string][]string, entries int) {
	t.Helper()
	out = make(map[string][]string)
	for shard := range push.Shard(u.list.Shards) {
		for from := 0; ; from++ {
			cs, err := u.store.Chunks(t.Context(), task.ListRef{Product: u.list.Product, ID: u.list.ID}, shard, from, 1)
			if err != nil {
				t.Fatal(err)
			}
			if len(cs) == 0 {
				break
			}
			for _, e := range cs[0].Entries {
				if push.ShardOf(e.User, u.list.Shards) != shard {
					t.Errorf("%q lies in shard %d", e.User, shard)
				}
				out[string(e.User)] = e.Values
				entries++
			}
		}
	}
	return out, entries
}

func TestUpload_Forms(t *testing.T) {
	long := strings.Repeat("x", maxUploadLine)
	for _, c := range []struct {
		name, media, body string
		want              string // users with their values, then how many lines, duplicates and bad lines; or a code
	}{
		{"plain", mediaCSV, "user\nalice\nbob\n", "alice[] bob[] 2 0 0"},
		{"without an end of the last line", mediaCSV, "user\nalice", "alice[] 1 0 0"},
		{"line ends of Windows", mediaCSV, "user,n\r\nalice,1\r\nbob,2\r\n", "alice[1] bob[2] 2 0 0"},
		{"a byte order mark", mediaCSV, "\xef\xbb\xbfuser\nalice\n", "alice[] 1 0 0"},
		{"quotes, commas and line breaks in fields", mediaCSV, "user,a\n\"al,ice\",\"x\"\"y\"\n\"bob\",\"1\n2\"\n", "al,ice[x\"y] bob[1\n2] 2 0 0"},
		{"columns in another order", mediaCSV, "a,user,b\n1,alice,2\n", "alice[1 2] 1 0 0"},
		{"empty lines", mediaCSV, "user\n\nalice\n\n\nbob\n", "alice[] bob[] 2 0 0"},
		{"one user twice", mediaCSV, "user,n\nalice,1\nalice,2\n", "alice[1] 2 1 0"},
		{"too few and too many fields", mediaCSV, "user,n\nalice\nbob,1,2\ncathy,3\n", "cathy[3] 3 0 2"},
		{"quotes in the middle of a field", mediaCSV, "user\nal\"ice\nbob\n", "bob[] 2 0 1"},
		{"no user", mediaCSV, "user,n\n,1\nbob,2\n", "bob[2] 2 0 1"},
		{"control characters and what is no UTF-8", mediaCSV, "user\na\x01\n\xff\xfe\nbob\n", "bob[] 3 0 2"},
		{"a long line", mediaCSV, "user\n" + long + "\nbob\n", "bob[] 2 0 1"},
		{"a long user", mediaCSV, "user\n" + long[:push.MaxUserID+1] + "\n" + long[:push.MaxUserID] + "\n", long[:push.MaxUserID] + "[] 2 0 1"},
		{"nothing", mediaCSV, "", "list_malformed"},
		{"no column of users", mediaCSV, "name\nalice\n", "list_malformed"},
		{"a column twice", mediaCSV, "user,a,a\nalice,1,2\n", "list_malformed"},
		{"a column with a bad name", mediaCSV, "user,a b\nalice,1\n", "list_malformed"},
		{"a first line that is no CSV", mediaCSV, "us\"er\nalice\n", "list_malformed"},

		{"objects", mediaNDJSON, `{"user":"alice"}` + "\n" + `{"user":"bob"}`, "alice[] bob[] 2 0 0"},
		{"types", mediaNDJSON, `{"user":"alice","a":"x","n":-1.50,"t":true}` + "\n" + `{"t":false,"n":2,"user":"bob"}`, "alice[x -1.50 true] bob[ 2 false] 2 0 0"},
		{"line ends of Windows and empty lines", mediaNDJSON, "\r\n" + `{"user":"alice"}` + "\r\n\r\n", "alice[] 1 0 0"},
		{"a byte order mark", mediaNDJSON, "\xef\xbb\xbf" + `{"user":"alice"}`, "alice[] 1 0 0"},
		{"what is no JSON", mediaNDJSON, `{"user":"alice"}` + "\nx\n[]\n\"bob\"\n{\n" + `{"user":"cathy"} x`, "alice[] 6 0 5"},
		{"types that are none", mediaNDJSON, `{"user":"alice","a":""}` + "\n" + `{"user":"bob","a":null}` + "\n" + `{"user":5}` + "\n" + `{"user":"cathy","a":{}}`, "alice[] 4 0 3"},
		{"a member that the first line does not have", mediaNDJSON, `{"user":"alice"}` + "\n" + `{"user":"bob","a":"x"}`, "alice[] 2 0 1"},
		{"a member twice", mediaNDJSON, `{"user":"alice","a":"x"}` + "\n" + `{"user":"bob","a":"x","a":"y"}`, "alice[x] 2 0 1"},
		{"no user", mediaNDJSON, `{"user":"alice","a":"x"}` + "\n" + `{"a":"y"}` + "\n" + `{"user":"","a":"y"}`, "alice[x] 3 0 2"},
		{"a long line", mediaNDJSON, `{"user":"alice"}` + "\n" + `{"user":"` + long + `"}` + "\n" + `{"user":"bob"}`, "alice[] bob[] 3 0 1"},
		{"nothing", mediaNDJSON, "\n\n", "list_malformed"},
		{"no user in the first line", mediaNDJSON, `{"a":"x"}`, "list_malformed"},
	} {
		t.Run(c.media+"/"+c.name, func(t *testing.T) {
			for _, whole := range []bool{true, false} {
				var body io.Reader = strings.NewReader(c.body)
				if !whole {
					body = iotest.OneByteReader(body)
				}
				u, err := readUpload(t, c.media, body)
				got := ""
				var e *push.Error
				if errors.As(err, &e) {
					got = e.Code
				} else {
					users, _ := u.users(t)
					var all []string
					for name, values := range users {
						all = append(all, fmt.Sprintf("%s%v", name, values))
					}
					got = strings.Join(slices.Sorted(slices.Values(all)), " ") + fmt.Sprintf(" %d %d %d", u.lines, u.duplicates, u.bad)
				}
				if got != c.want {
					t.Errorf("got %.300q (%v), want %.300q", got, err, c.want)
				}
			}
		})
	}
}

func readUpload(t *testing.T, media string, body io.Reader) (*upload, error) {
	u := newUpload(taskmemory.New(taskmemory.Config{}), task.List{Product: product, ID: 1, Shards: 4})
	read := u.readNDJSON
	if media == mediaCSV {
		read = u.readCSV
	}
	err := read(t.Context(), body)
	if err == nil && u.list.Users > 0 {
		_, err = u.finish(t.Context())
	}
	return u, err
}

func TestUpload_WhatBreaksOffLeavesNoList(t *testing.T) {
	for _, media := range []string{mediaCSV, mediaNDJSON} {
		body := io.MultiReader(strings.NewReader("user\nalice\nbo"), iotest.ErrReader(errors.New("connection reset")))
		if media == mediaNDJSON {
			body = io.MultiReader(strings.NewReader(`{"user":"alice"}`+"\n{"), iotest.ErrReader(errors.New("connection reset")))
		}
		u, err := readUpload(t, media, body)
		var e *push.Error
		if !errors.As(err, &e) || e.Code != string(codeListMalformed) {
			t.Errorf("%s: got %v", media, err)
		}
		if _, err := u.store.List(t.Context(), task.ListRef{Product: product, ID: 1}); push.KindOf(err) != push.KindNotFound {
			t.Errorf("%s: there is a list: %v", media, err)
		}
	}
}

func TestUpload_StrictRefusesBadLines(t *testing.T) {
	g := newGateway(t)
	post := func(query, body string) *answer {
		return g.do(ask{path: "/v1/lists" + query, body: body, header: map[string]string{"Content-Type": "text/csv"}})
	}
	post("?strict=true", "user\nalice\n\x01\n").want(t, http.StatusBadRequest, "list_bad_lines")
	post("?strict=true", "user\nalice\nalice\n").want(t, http.StatusCreated)
	post("", "user\n\x01\n").want(t, http.StatusBadRequest, "list_malformed")
	a := post("?name=vips", "user\nalice\n\x01\n")
	var l struct {
		Name                     string
		Users, Lines, Duplicates int
		BadLines                 int `json:"bad_lines"`
		Errors                   []struct{ Line int }
	}
	a.want(t, http.StatusCreated).decode(t, &l)
	if l.Name != "vips" || l.Users != 1 || l.Lines != 2 || l.BadLines != 1 || len(l.Errors) != 1 || l.Errors[0].Line != 3 {
		t.Errorf("got %+v", l)
	}
}

func FuzzUpload(f *testing.F) {
	for _, s := range []string{"user\nalice\nbob\n", "a,user\n1,alice\n", "user\n\"a\"\"b\"\n\"c\nd\"\n", `{"user":"alice","n":1}` + "\n" + `{"user":"bob"}`, "\xef\xbb\xbfuser\r\nx\r\n"} {
		f.Add(true, []byte(s))
		f.Add(false, []byte(s))
	}
	f.Fuzz(func(t *testing.T, isCSV bool, body []byte) {
		media := mediaNDJSON
		if isCSV {
			media = mediaCSV
		}
		u, err := readUpload(t, media, bytes.NewReader(body))
		if sum := int(u.list.Users) + u.duplicates + u.bad; sum != u.lines && err == nil {
			t.Fatalf("%d lines are %d users, %d duplicates and %d bad ones", u.lines, u.list.Users, u.duplicates, u.bad)
		}
		if len(u.errors) > u.bad || len(u.errors) < min(u.bad, errorsShown) {
			t.Fatalf("of %d bad lines %d are told", u.bad, len(u.errors))
		}
		if err != nil || u.list.Users == 0 {
			return
		}
		users, entries := u.users(t)
		if len(users) != int(u.list.Users) || entries != len(users) {
			t.Fatalf("%d users are told, %d stored in %d entries", u.list.Users, len(users), entries)
		}
		for name, values := range users {
			if push.UserID(name).Check() != nil || len(values) > len(u.list.Variables) {
				t.Fatalf("%q has %d values of %d variables", name, len(values), len(u.list.Variables))
			}
			for i, v := range values {
				if !utf8.ValidString(v) || written(v) > u.list.Longest[i] {
					t.Fatalf("a value of %q is %q, longer than %d", name, v, u.list.Longest[i])
				}
			}
		}
	})
}
