package bare

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

// serveLibrary serves with the usual libraries, and a goroutine that reads for each connection.
func serveLibrary(ctx context.Context, l net.Listener) error {
	welcome, caughtUp := greeting()
	s := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
		if err != nil {
			return // it was answered
		}
		defer c.CloseNow()
		ctx := context.Background() // that of the request says nothing any more, and one that can end would cost more
		if _, _, err := c.Read(ctx); err != nil {
			return
		}
		if errors.Join(c.Write(ctx, websocket.MessageText, welcome), c.Write(ctx, websocket.MessageText, caughtUp)) != nil {
			return
		}
		for err == nil { // a close frame ends it
			_, _, err = c.Read(ctx)
		}
	})}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	return s.Serve(l)
}
