// Pages opened from the disk may start no worker, so the theme's search gets a hidden frame with the same interface.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(script) {
      super();
      this.waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.addEventListener("load", () => {
        const inside = frame.contentWindow;
        inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", {data}));
        const element = inside.document.createElement("script");
        element.src = script;
        element.addEventListener("load", () => {
          this.inside = inside;
          this.waiting.splice(0).forEach(data => this.postMessage(data));
        });
        inside.document.body.append(element);
      }, {once: true});
      document.body.append(frame);
    }

    postMessage(data) {
      if (this.inside) this.inside.dispatchEvent(new MessageEvent("message", {data}));
      else this.waiting.push(data);
    }
  };
}
