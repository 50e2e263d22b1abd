package ws

import (
	"fmt"
)

// Section 8: text is UTF-8.
func textRules() []rule {
	return []rule{
		streamRule("8.1", "UTF-8 of every length and at every boundary", goodText()...),
		streamRule("8.1", "what is not UTF-8 is refused", badText()...),
		streamRule("8.1", "a character may be split between fragments", splitText()...),
		streamRule("8.1", "a character that the message cuts off is refused", cutText()...),
		streamRule("8.1", "the reason of a close is UTF-8 too", badReasons()...),
	}
}

// goodText and badText follow Markus Kuhn's "UTF-8 decoder capability and stress test".
func goodText() []sent {
	return named([]string{
		"κόσμε",                          // 1
		"\u0080", "\u0800", "\U00010000", // 2.1: the first of two, three and four octets
		"\u007f", "\u07ff", "\uffff", "\U0010ffff", // 2.2, 2.3.4: the last of one to four
		"\ud7ff", "\ue000", "\ufffd", // 2.3: around the surrogates
		"\ufffe", "\U0001fffe", "\U0010fffe", "\ufdd0", "\ufdef", // 5.3: noncharacters are characters to UTF-8
		"\ufeff", // a byte order mark is a character
		"🔔🔕", "👩‍🚀", "e\u0301",
	}, func(s string) sent {
		return sent{bytes: frame(fin|opText, ack(s)), cursors: s}
	})
}

// notUTF8 are sequences that no UTF-8 holds.
var notUTF8 = []string{
	// 3.1: continuation octets without a beginning
	"\x80", "\xbf", "\x80\xbf", "\x80\xbf\x80", "\x80\xbf\x80\xbf\x80\xbf\x80",
	// 3.2: beginnings followed by a space
	"\xc2 ", "\xdf ", "\xe0 ", "\xef ", "\xf0 ", "\xf4 ", "\xf8 ", "\xfb ", "\xfc ", "\xfd ",
	// 3.3: the last octet is missing
	"\xc3", "\xe0\xa0", "\xe2\x82", "\xef\xbf", "\xf0\x90\x80", "\xf4\x8f\xbf", "\xf8\x88\x80\x80", "\xfc\x84\x80\x80\x80",
	// 3.4: all of those in a row
	"\xc3\xe0\xa0\xf0\x90\x80\xf8\x88\x80\x80\xfc\x84\x80\x80\x80",
	// 3.5: octets that never appear
	"\xfe", "\xff", "\xfe\xfe\xff\xff", "\xc0", "\xc1", "\xf5", "\xf8",
	// 4.1: a slash in more octets than it needs
	"\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xf8\x80\x80\x80\xaf", "\xfc\x80\x80\x80\x80\xaf",
	// 4.2: the largest that are too long
	"\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xf8\x87\xbf\xbf\xbf", "\xfc\x83\xbf\xbf\xbf\xbf",
	// 4.3: NUL in more octets than one
	"\xc0\x80", "\xe0\x80\x80", "\xf0\x80\x80\x80",
	// 2.1, 2.2: of five and six octets, and beyond U+10FFFF
	"\xf8\x88\x80\x80\x80", "\xfc\x84\x80\x80\x80\x80", "\xf4\x90\x80\x80", "\xf7\xbf\xbf\xbf", "\xfb\xbf\xbf\xbf\xbf",
	// 5.1, 5.2: surrogates, single and in pairs
	"\xed\xa0\x80", "\xed\xad\xbf", "\xed\xae\x80", "\xed\xaf\xbf", "\xed\xb0\x80", "\xed\xbe\x80", "\xed\xbf\xbf",
	"\xed\xa0\x80\xed\xb0\x80", "\xed\xaf\xbf\xed\xbf\xbf",
}

func badText() (all []sent) {
	for _, bad := range notUTF8 {
		all = append(all, sent{
			name:    fmt.Sprintf("% x", bad),
			bytes:   join(frame(fin|opText, ack("a")), frame(fin|opText, quoted(bad)), frame(fin|opText, ack("b"))),
			cursors: "a",
			code:    CodeNotUTF8,
		})
	}
	return append(all, sent{
		name:  "in fragments",
		bytes: join(frame(opText, `{"type":"ping","x":"`+"\xed"), frame(opContinue, "\xa0"), frame(fin|opContinue, "\x80\"}")),
		code:  CodeNotUTF8,
	}, sent{
		name:  "between good fragments",
		bytes: join(frame(opText, `{"type":"ping",`), frame(opContinue, "\xff"), frame(fin|opContinue, `"x":1}`)),
		code:  CodeNotUTF8,
	})
}

// splitText cuts a message at each octet of a character of two, three and four octets, and between each.
func splitText() (all []sent) {
	for _, c := range []string{"ä", "€", "🔔", "\U0010ffff"} {
		message := ack(c)
		at := len(`{"type":"ack","cursor":"`)
		for n := 1; n < len(c); n++ {
			all = append(all, sent{
				name:    fmt.Sprintf("%+q after %d", c, n),
				bytes:   join(frame(opText, message[:at+n]), frame(fin|opContinue, message[at+n:])),
				cursors: c,
			})
		}
		parts := [][]byte{frame(opText, message[:at])}
		for i := range len(c) {
			parts = append(parts, frame(opContinue, c[i:i+1]), frame(fin|opPing, ""), frame(opContinue, ""))
		}
		all = append(all, sent{
			name:    fmt.Sprintf("%+q in octets", c),
			bytes:   join(append(parts, frame(fin|opContinue, message[at+len(c):]))...),
			cursors: c,
		})
	}
	return all
}

func cutText() (all []sent) {
	for _, c := range []string{"ä", "€", "🔔", "\U0010ffff"} {
		for n := 1; n < len(c); n++ {
			all = append(all,
				sent{
					name:  fmt.Sprintf("%+q after %d", c, n),
					bytes: frame(fin|opText, `{"type":"ping"}`+c[:n]),
					code:  CodeNotUTF8,
				},
				sent{
					name: fmt.Sprintf("%+q after %d, in a fragment, and the rest in the next message", c, n),
					bytes: join(
						frame(opText, `{"type":"ping"}`), frame(fin|opContinue, c[:n]), frame(fin|opText, c[n:]+`{"type":"ping"}`),
					),
					code: CodeNotUTF8,
				},
			)
		}
	}
	return all
}

func badReasons() (all []sent) {
	for _, bad := range notUTF8 {
		all = append(all, sent{name: fmt.Sprintf("% x", bad), bytes: closeFrame(1000, "see "+bad), code: CodeNotUTF8})
	}
	return all
}
